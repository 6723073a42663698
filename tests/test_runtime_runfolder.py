"""A run's folder is locked while the run lasts, and rid of what killed runs left half written."""

import os
import time

import pytest

from medseg.core.errors import ConfigError, WriteError
from medseg.runtime.runfolder import fresh_folder, locked


def test_a_second_run_is_refused_and_told_who_is_there(tmp_path):
    with (
        locked(tmp_path),
        pytest.raises(ConfigError, match=f"process {os.getpid()} on .*, since 20"),
        locked(tmp_path),
    ):
        pass
    with locked(tmp_path):
        pass


def test_parts_of_killed_writers_are_removed_and_those_still_written_are_not(tmp_path):
    for name, age_s in (("old", 3600), ("young", 0)):
        part = tmp_path / f".part-{name}"
        part.mkdir()
        (part / "state.pt").write_bytes(b"half")
        os.utime(part, (time.time() - age_s,) * 2)
    (tmp_path / "state.pt").write_bytes(b"whole")
    with locked(tmp_path):
        assert not (tmp_path / ".part-old").exists()
        assert (tmp_path / ".part-young" / "state.pt").exists()
        assert (tmp_path / "state.pt").read_bytes() == b"whole"


def test_a_place_that_holds_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(WriteError, match=r"OUT-001 .*cannot be written to"),
        locked(tmp_path / "file"),
    ):
        pass
    with pytest.raises(WriteError, match="OUT-001"):
        fresh_folder(tmp_path / "file", "run")


def test_runs_of_one_second_get_folders_of_their_own(tmp_path):
    assert len({fresh_folder(tmp_path, "run") for _ in range(20)}) == 20
