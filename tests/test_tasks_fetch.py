import ast
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from sklearn.model_selection import KFold

from medseg import cli
from medseg.core.errors import DownloadError, ManifestError
from medseg.data.catalogue import Dataset, Folds, find_dataset, read_catalogue
from medseg.data.download import Patience
from medseg.tasks.fetch import fetch_dataset

IDS = [f"case_{n:02d}" for n in range(7)]
QUICK = Patience(timeout_s=1, tries=1)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def archive_of(path: Path) -> bytes:
    training = [{"image": f"./imagesTr/{case}.nii.gz"} for case in IDS]
    files = {"dataset.json": json.dumps({"training": training}).encode()}
    files |= {f"imagesTr/{case}.nii.gz": case.encode() * 100 for case in IDS}
    with tarfile.open(path, "w") as packed:
        for name, data in files.items():
            info = tarfile.TarInfo(f"Task99_Small/{name}")
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))
    return path.read_bytes()


@pytest.fixture
def dataset(tmp_path: Path) -> Iterator[Dataset]:
    """A dataset that a server on this machine offers."""
    (tmp_path / "served").mkdir()
    data = archive_of(tmp_path / "served" / "Task99_Small.tar")
    handler = partial(Quiet, directory=str(tmp_path / "served"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield Dataset(
        name="Task99_Small",
        title="nothing",
        url=f"http://127.0.0.1:{server.server_port}/Task99_Small.tar",
        checksum=f"md5:{hashlib.md5(data).hexdigest()}",
        homepage="",
        licence="CC0-1.0",
        citation="nobody",
        source="code",
        channels={"CT": "CT"},
        classes={"thing": 1},
        num_train=7,
        num_test=0,
        folds=Folds(number=5, seed=12345, source="code"),
    )
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_catalogue_agrees_with_monai_on_every_address_and_checksum() -> None:
    # Read, not imported: `monai.apps` takes seconds to import.
    source = Path(find_spec("monai").submodule_search_locations[0]) / "apps" / "datasets.py"
    tables = [
        ast.literal_eval(node.value)
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Assign)
        and getattr(node.targets[0], "id", "") in ("resource", "md5")
        if isinstance(node.value, ast.Dict) and "Task04" in ast.unparse(node.value)
    ]
    catalogue = read_catalogue()
    assert [
        {name: d.url for name, d in catalogue.items()},
        {name: d.checksum.removeprefix("md5:") for name, d in catalogue.items()},
    ] == tables


def test_the_real_decathlon_files_at_hand_agree_with_the_catalogue(shared_data) -> None:
    found = json.loads((shared_data("hippocampus") / "dataset.json").read_text())
    dataset = read_catalogue()["Task04_Hippocampus"]
    assert {v: int(k) for k, v in found["labels"].items() if k != "0"} == dataset.classes
    assert list(found["modality"].values()) == list(dataset.channels)


@pytest.mark.parametrize("number", [5, 32, 41, 260])
def test_published_folds_are_those_of_scikit_learn(number: int) -> None:
    ids = [f"c{n}" for n in range(number)]
    folds = Folds(number=5, seed=12345, source="").of(reversed(ids))
    splitter = KFold(5, shuffle=True, random_state=12345)
    for fold, (_, validation) in enumerate(splitter.split(ids)):
        assert {c for c, f in folds.items() if f == fold} == {sorted(ids)[i] for i in validation}


def test_published_folds_are_those_that_monai_lists_for_prostate_and_heart() -> None:
    """Validation lists of dataset_task05.json (fold 0, fold 4) and dataset_task02.json (fold 2)."""
    prostate = [0, 1, 2, 4, 6, 7, 10, 13, 14, 16, 17, 18, 20, 21, 24, 25, 28, 29, 31, 32, 34, 35,
                37, 38, 39, 40, 41, 42, 43, 44, 46, 47]  # fmt: skip
    heart = [3, 4, 5, 7, 9, 10, 11, 14, 16, 17, 18, 19, 20, 21, 22, 23, 24, 26, 29, 30]
    listed = [
        ("Task05_Prostate", "prostate_{:02d}", prostate, 0, [0, 4, 14, 20, 25, 31, 42]),
        ("Task05_Prostate", "prostate_{:02d}", prostate, 4, [1, 2, 6, 7, 16, 44]),
        ("Task02_Heart", "la_{:03d}", heart, 2, [11, 14, 19, 26]),
    ]
    for name, pattern, cases, fold, validation in listed:
        folds = read_catalogue()[name].folds
        assert folds is not None
        found = folds.of(pattern.format(case) for case in cases)
        assert [c for c, f in found.items() if f == fold] == [
            pattern.format(case) for case in validation
        ]


@pytest.mark.parametrize(
    ("asked", "found"),
    [("task04_hippocampus", "Task04_Hippocampus"), ("Task09_Spleen", "Task09_Spleen")],
)
def test_a_dataset_is_found_whatever_its_case(asked: str, found: str) -> None:
    assert find_dataset(asked, read_catalogue()).name == found


@pytest.mark.parametrize(
    ("asked", "near"),
    [("hippocampus", "Task04_Hippocampus"), ("Task4_Hippocampus", "Task04_Hippocampus"),
     ("splen", "Task09_Spleen"), ("Task08_HepaticVessels", "Task08_HepaticVessel")],
)  # fmt: skip
def test_a_misspelt_dataset_is_refused_with_the_nearest(asked: str, near: str) -> None:
    with pytest.raises(DownloadError, match=f"no such dataset; the nearest is {near}"):
        find_dataset(asked, read_catalogue())


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("name", "../up", "name"),
        ("checksum", "md5:xyz", "checksum"),
        ("num_train", 0, "num_train"),
        ("num_train", "20", "num_train"),
        ("colour", "blue", "colour"),
        ("classes", {}, "classes"),
    ],
)
def test_a_catalogue_entry_that_is_wrong_is_refused_with_its_key(
    tmp_path: Path, dataset: Dataset, key: str, value: object, told: str
) -> None:
    entry = {**dataset.model_dump(), key: value}
    (tmp_path / "Task99_Small.yaml").write_text(yaml.safe_dump(entry))
    with pytest.raises(ManifestError, match=f"FET-010.*{told}"):
        read_catalogue(tmp_path)


def test_a_dataset_is_fetched_with_its_receipt_and_folds(tmp_path: Path, dataset: Dataset) -> None:
    fetched = fetch_dataset(dataset, tmp_path / "out", patience=QUICK)
    assert not fetched.already
    assert fetched.num_files == 8
    receipt = json.loads((fetched.folder / "fetched.json").read_text())
    assert receipt["checksum"] == dataset.checksum
    served = (tmp_path / "served" / "Task99_Small.tar").read_bytes()
    assert receipt["sha256"] == hashlib.sha256(served).hexdigest()
    assert sorted(json.loads((fetched.folder / "folds.json").read_text())["folds"]) == IDS
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        ".Task99_Small.lock",
        "Task99_Small",
    ]


def test_no_folds_are_made_up_for_another_number_of_cases(tmp_path: Path, dataset: Dataset) -> None:
    other = dataset.model_copy(update={"num_train": 8})
    folder = fetch_dataset(other, tmp_path / "out", patience=QUICK).folder
    assert not (folder / "folds.json").exists()


def test_a_dataset_that_is_there_is_not_downloaded_again(tmp_path: Path, dataset: Dataset) -> None:
    fetch_dataset(dataset, tmp_path / "out", patience=QUICK)
    (tmp_path / "served" / "Task99_Small.tar").unlink()
    assert fetch_dataset(dataset, tmp_path / "out", patience=QUICK).already


def test_a_dataset_that_lost_files_or_is_another_version_is_refused(
    tmp_path: Path, dataset: Dataset
) -> None:
    folder = fetch_dataset(dataset, tmp_path / "out", patience=QUICK).folder
    other = dataset.model_copy(update={"checksum": "md5:" + "0" * 32})
    with pytest.raises(DownloadError, match="another version"):
        fetch_dataset(other, tmp_path / "out", patience=QUICK)
    (folder / "imagesTr" / "case_03.nii.gz").write_bytes(b"")
    with pytest.raises(DownloadError, match=r"1 of 8 files .*case_03"):
        fetch_dataset(dataset, tmp_path / "out", patience=QUICK)
    (folder / "fetched.json").unlink()
    with pytest.raises(DownloadError, match="not made by medseg fetch"):
        fetch_dataset(dataset, tmp_path / "out", patience=QUICK)


def test_an_archive_at_hand_is_used_if_its_checksum_is_right_and_left_there(
    tmp_path: Path, dataset: Dataset
) -> None:
    archive = tmp_path / "served" / "Task99_Small.tar"
    (tmp_path / "out").mkdir()
    ours = archive.rename(tmp_path / "out" / archive.name)
    assert fetch_dataset(dataset, tmp_path / "out", patience=QUICK).num_files == 8
    assert ours.is_file()
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / archive.name).write_bytes(b"damaged")
    with pytest.raises(DownloadError, match="FET-004"):
        fetch_dataset(dataset, tmp_path / "two", patience=QUICK)


def test_keep_archive_keeps_it(tmp_path: Path, dataset: Dataset) -> None:
    fetch_dataset(dataset, tmp_path / "out", patience=QUICK, keep_archive=True)
    assert (tmp_path / "out" / "Task99_Small.tar").is_file()


def test_two_processes_do_not_fetch_the_same(tmp_path: Path, dataset: Dataset) -> None:
    (tmp_path / "out").mkdir()
    lock = FileLock(tmp_path / "out" / ".Task99_Small.lock")
    with lock, pytest.raises(DownloadError, match="another process is fetching it"):
        fetch_dataset(dataset, tmp_path / "out", patience=QUICK)
    assert fetch_dataset(dataset, tmp_path / "out", patience=QUICK).num_files == 8


def test_the_command_fetches_by_bare_word_from_a_users_catalogue(
    tmp_path: Path, dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my (cat)").mkdir()
    entry = yaml.safe_dump(dataset.model_dump())
    (tmp_path / "my (cat)" / "Task99_Small.yaml").write_text(entry)
    line = ["fetch", "task99_small", f"catalogue={tmp_path}/my (cat)", f"output={tmp_path}/out"]
    assert cli.main(line) == 0
    assert "fetched and checked: 8 files" in capsys.readouterr().out
    assert cli.main(line) == 0
    assert "already fetched and unchanged" in capsys.readouterr().out


def test_the_command_lists_the_catalogue_and_refuses_a_wrong_name_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["fetch"]) == 0
    assert all(name in capsys.readouterr().out for name in ["Task01_BrainTumour"])
    assert cli.main(["fetch", "name=hipocampus"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("medseg fetch: FET-001 hipocampus: no such dataset; the nearest is Task")
    assert told.count("\n") == 1
