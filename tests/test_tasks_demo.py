"""The demo walks the whole way, writes where it says, and measures what it prints."""

import contextlib
import json
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module

from medseg.config import settings
from medseg.core.errors import ConfigError, ManifestError
from medseg.core.geometry import require_match
from medseg.data.anatomy import LABELS
from medseg.data.manifest import read_manifest
from medseg.io.formats import read_label_map, read_volume
from medseg.metrics.overlap import measure_overlap
from medseg.tasks.demo import DemoResult, run_demo, show_comparison, show_way_on

TINY = (
    "num_cases=7", "num_test=2", "baseline_cases=2", "training.max_time=null",
    "training.max_steps=2", "training.num_validations=1", "training.validation_cases=1",
)  # fmt: skip


def demo_settings(*overrides: str) -> dict[str, object]:
    with initialize_config_module("medseg.conf", version_base="1.3"):
        return settings(compose("demo", overrides=list(overrides)))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DemoResult]:
    folder = tmp_path_factory.mktemp("demo") / "here"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDSEG_HOME", str(folder.parent / "home"))
        return folder, run_demo(folder, demo_settings(*TINY))


def test_every_mask_lies_on_its_scans_grid_and_dicom_scans_get_a_seg(demo):
    folder, _ = demo
    manifest = read_manifest(folder / "dataset" / "manifest.json")
    assert len(manifest.test_cases) == 2
    for case in manifest.test_cases:
        scan = manifest.data_root / case.images["CT"]
        mask = read_label_map(folder / "masks" / f"{case.case_id}.nii.gz", LABELS)
        require_match(mask.geometry, read_volume(scan).geometry, name="mask", reference_name="scan")
        assert (folder / "masks" / f"{case.case_id}.seg.dcm").exists() == scan.is_dir()


def test_the_dice_it_reports_is_that_of_the_files_it_wrote(demo):
    folder, result = demo
    dice = {name: [] for name in LABELS.names}
    for number in (5, 6):
        name = f"phantom_{number:03d}.nii.gz"
        mask = read_label_map(folder / "masks" / name, LABELS).only_channel
        reference = read_label_map(folder / "phantoms" / "references" / name, LABELS).only_channel
        for index, label in enumerate(LABELS.names, start=1):
            dice[label].append(measure_overlap(mask == index, reference == index).dice)
    assert result.dice == pytest.approx({name: np.mean(d) for name, d in dice.items()})
    assert json.loads((folder / "demo.json").read_text())["dice"] == pytest.approx(result.dice)


def test_manifest_and_checkpoint_know_codes_and_left_and_right(demo):
    folder, _ = demo
    assert read_manifest(folder / "dataset" / "manifest.json").labels == LABELS


def stored(folder: Path, query: str) -> dict[str, str]:
    with sqlite3.connect(folder / "mlflow.db") as store:
        return dict(store.execute(query))


def test_both_runs_stand_in_the_demos_own_store(demo):
    folder, _ = demo
    runs: dict[str, str] = {}
    until = time.monotonic() + 300
    # On a busy machine the senders come later than the demo's end.
    while list(runs.values()) != ["FINISHED"] * 2 and time.monotonic() < until:
        time.sleep(0.2)
        with contextlib.suppress(sqlite3.OperationalError):
            runs = stored(folder, "select name, status from runs")
    metrics = stored(folder, "select key, max(step) from latest_metrics group by key").keys()
    assert runs == {"train": "FINISHED", "evaluate": "FINISHED"}
    assert {"dice/tumour", "dice/foreground"} <= metrics


def test_what_is_printed_is_what_was_measured(demo, capsys):
    folder, result = demo
    show_comparison(result)
    show_way_on(folder)
    printed = capsys.readouterr().out
    assert f"{result.dice['tumour']:.3f}" in printed
    assert f"{np.mean(list(result.baseline_dice.values())):.3f}" in printed
    for path in printed.split():
        if path.startswith(str(folder)):
            assert Path(path.rstrip(",")).exists()


def test_a_folder_that_no_demo_made_is_never_cleared(tmp_path):
    (tmp_path / "thesis.txt").write_text("ten years of work")
    with pytest.raises(ConfigError, match="holds something that no demo made"):
        run_demo(tmp_path, demo_settings(*TINY))
    assert (tmp_path / "thesis.txt").exists()


def test_a_second_demo_removes_what_the_first_wrote_and_no_more(tmp_path):
    (tmp_path / ".medseg-demo").touch()
    (tmp_path / "masks").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ManifestError, match="at least one case"):
        run_demo(tmp_path, demo_settings("num_cases=1", "num_test=1"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".medseg-demo", "notes.txt"]


@pytest.mark.slow
def test_the_network_beats_every_threshold_by_far(tmp_path):
    result = run_demo(tmp_path, demo_settings())
    assert result.exit_code == 0
    mean = np.mean(list(result.dice.values()))
    assert mean >= 0.85
    assert np.mean(list(result.baseline_dice.values())) <= mean - 0.15
    assert sum(result.seconds.values()) < 660
