"""The spool: what a run logged, whatever happens to its process."""

import json
import os
import subprocess
import sys
import time

import pytest

from medseg.tracking.kept import keep_files, keep_text, release
from medseg.tracking.outbox import Outbox
from medseg.tracking.spool import Spool


def metrics(step):
    return {"values": {"loss": step / 7}, "step": step}


def test_events_come_out_as_they_went_in(tmp_path):
    spool = Spool(tmp_path)
    (tmp_path / "spool").mkdir()
    for step in range(5):
        spool.append("metrics", metrics(step))
    assert [event.body for event in Outbox(tmp_path).unsent()] == [
        metrics(step) for step in range(5)
    ]
    assert [event.body["step"] for event in Outbox(tmp_path).unsent(limit=2)] == [0, 1]


def test_what_is_marked_sent_is_not_handed_out_again_by_another_process(tmp_path):
    spool = Spool(tmp_path)
    for step in range(5):
        spool.append("metrics", metrics(step))
    Outbox(tmp_path).mark_sent(Outbox(tmp_path).unsent()[2])
    assert [event.body["step"] for event in Outbox(tmp_path).unsent()] == [3, 4]
    assert Outbox(tmp_path).num_left == 2


@pytest.mark.parametrize("num_bytes", range(1, 80, 7))
def test_a_line_torn_by_a_kill_loses_only_itself(tmp_path, num_bytes):
    first = Spool(tmp_path)
    first.append("metrics", metrics(0))
    whole = (tmp_path / "spool" / "spool.jsonl").read_bytes()
    with (tmp_path / "spool" / "spool.jsonl").open("ab") as stream:
        stream.write(whole[:num_bytes])
    first.close()
    second = Spool(tmp_path)
    assert [event.body["step"] for event in Outbox(tmp_path).unsent()] == [0]
    second.append("metrics", metrics(1))
    assert [event.body["step"] for event in Outbox(tmp_path).unsent()] == [0, 1]


def test_not_a_number_survives(tmp_path):
    spool = Spool(tmp_path)
    spool.append("metrics", {"values": {"a": float("nan"), "b": float("inf")}, "step": 0})
    values = Outbox(tmp_path).unsent()[0].body["values"]
    assert values["a"] != values["a"]
    assert values["b"] == float("inf")


def test_the_end_is_seen_from_the_last_line_alone(tmp_path):
    spool = Spool(tmp_path)
    assert not spool.has_ended
    spool.append("params", {"values": {"long": "x" * 10_000}})
    assert not spool.has_ended
    spool.append("end", {"status": "FINISHED"})
    assert spool.has_ended
    spool.append("start", {})
    assert not spool.has_ended


def test_a_kept_file_is_the_version_of_that_moment(tmp_path):
    spool = Spool(tmp_path)
    file = tmp_path / "model.pt"
    file.write_text("first")
    kept = keep_files(spool.folder, {"model.pt": file})
    newer = tmp_path / "newer"
    newer.write_text("second")
    newer.replace(file)
    assert (spool.folder / kept / "model.pt").read_text() == "first"


def test_files_are_released_once_they_are_sent(tmp_path):
    spool = Spool(tmp_path)
    spool.append("file", {"kept": keep_text(spool.folder, "a: 1", "config.yaml"), "folder": ""})
    (event,) = Outbox(tmp_path).unsent()
    assert (spool.folder / event.body["kept"] / "config.yaml").read_text() == "a: 1"
    release(spool.folder, event)
    assert not (spool.folder / event.body["kept"]).exists()


def test_a_run_is_abandoned_only_when_its_process_is_gone(tmp_path):
    code = (
        "import sys, time, pathlib\n"
        "from medseg.tracking.spool import Spool\n"
        "spool = Spool(pathlib.Path(sys.argv[1]))\n"
        "spool.writer_lock.acquire()\n"
        "spool.append('start', {})\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    training = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        training.stdout.readline()
        assert not Spool(tmp_path).is_abandoned()
    finally:
        training.kill()
        training.wait()
        training.stdout.close()
    assert Spool(tmp_path).is_abandoned()


def test_a_full_disk_is_an_error_that_leaves_the_spool_readable(tmp_path, monkeypatch):
    spool = Spool(tmp_path)
    spool.append("metrics", metrics(0))
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:10]))
    with pytest.raises(OSError, match="No space left"):
        spool.append("metrics", metrics(1))
    monkeypatch.undo()
    spool.append("metrics", metrics(2))
    assert [event.body["step"] for event in Outbox(tmp_path).unsent()] == [0, 2]


def test_an_append_takes_far_less_than_a_millisecond(tmp_path):
    spool = Spool(tmp_path)
    values = {"values": {f"dice/class {n}": n / 9 for n in range(10)}, "step": 1}
    seconds = []
    for _ in range(500):
        begun = time.perf_counter()
        spool.append("metrics", values)
        seconds.append(time.perf_counter() - begun)
    # The median: a busy machine may take the processor away at any moment.
    assert sorted(seconds)[250] < 1e-3


def test_lines_are_json_that_anybody_can_read(tmp_path):
    Spool(tmp_path).append("tags", {"values": {"stage": "test"}})
    line = json.loads((tmp_path / "spool" / "spool.jsonl").read_text())
    assert line["kind"] == "tags"
    assert abs(line["time_ms"] / 1000 - time.time()) < 60
