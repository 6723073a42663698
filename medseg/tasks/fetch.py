"""`medseg fetch`: a public dataset on this disk, whole and checked, or not at all."""

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from medseg import __version__
from medseg.config import settings
from medseg.core.errors import DownloadError, WriteError
from medseg.data.archives import Unpacked, unpacked
from medseg.data.catalogue import Dataset, find_dataset, read_catalogue
from medseg.data.download import Patience, Watch, download
from medseg.data.partial import require_checksum
from medseg.runtime.console import progress, say, table
from medseg.runtime.files import read_json, write_json

RECEIPT = "fetched.json"
FOLDS = "folds.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A dataset on this disk; `already`: it was there and still is what was fetched."""

    folder: Path
    num_files: int
    num_bytes: int
    already: bool


def main(config: DictConfig) -> int:
    """Fetch the dataset that `name` names, or list the catalogue."""
    wanted = settings(config)
    folder = wanted["catalogue"]
    catalogue = read_catalogue(Path(folder) if folder else None)
    if wanted["name"] is None:
        _list(catalogue)
        return 0
    dataset = find_dataset(str(wanted["name"]), catalogue)
    fetched = fetch_dataset(
        dataset,
        Path(wanted["output"]),
        patience=Patience(timeout_s=wanted["timeout_s"], tries=wanted["tries"]),
        allow_http=wanted["allow_http"],
        keep_archive=wanted["keep_archive"],
        watch=lambda steps: progress(steps, f"{dataset.name}, MiB"),
        note=lambda text: say(text, error=True),
    )
    _tell(dataset, fetched)
    return 0


def fetch_dataset(
    dataset: Dataset,
    output: Path,
    *,
    patience: Patience | None = None,
    allow_http: bool = False,
    keep_archive: bool = False,
    watch: Watch = iter,
    note: Callable[[str], None] = lambda _: None,
) -> Fetched:
    """Make `output/<name>` hold the dataset, and a receipt of what was fetched.

    An archive of the right name that already lies in `output` is used instead of a download if its
    checksum is right, and is left where it is.

    Args:
        dataset: what to fetch.
        output: folder that the dataset's own folder is made in.
        patience: with the server.
        allow_http: plain http from other machines, too.
        keep_archive: leave the downloaded archive beside the folder.
        watch: shows progress, one item a MiB.
        note: told, in one line, why the server is asked again.

    Raises:
        DownloadError: FET-006 another process is at it, FET-009 the folder holds something else or
            has lost files; and what `download` and `unpacked` raise.
        WriteError: the disk refused.
    """
    folder = output / dataset.name
    with _alone(output, dataset.name):
        if folder.exists():
            return _still_there(dataset, folder)
        archive = output / PurePosixPath(dataset.url).name
        ours = not archive.exists()
        if ours:
            sha256 = download(
                dataset.url,
                archive,
                checksum=dataset.checksum,
                patience=patience,
                allow_http=allow_http,
                watch=watch,
                note=note,
            )
        else:
            sha256 = require_checksum(archive, dataset.checksum)
        with unpacked(archive, folder) as content:
            _write_folds(dataset, content.folder)
            _write_receipt(dataset, content, sha256=sha256)
        if ours and not keep_archive:
            archive.unlink()
    return Fetched(
        folder=folder,
        num_files=len(content.files),
        num_bytes=sum(content.files.values()),
        already=False,
    )


def _still_there(dataset: Dataset, folder: Path) -> Fetched:
    """Compare a folder with its receipt: names and sizes, which takes no time."""
    if not (folder / RECEIPT).is_file():
        raise DownloadError(
            f"{folder}: was not made by medseg fetch (it holds no {RECEIPT})",
            code="FET-009",
            hint="move it, or choose another output=",
        )
    receipt = read_json(folder / RECEIPT, kind=DownloadError, what="a receipt of medseg fetch")
    files = receipt.get("files")
    if receipt.get("checksum") != dataset.checksum or not isinstance(files, dict):
        raise DownloadError(
            f"{folder}: holds another version of {dataset.name}",
            code="FET-009",
            hint="move it, or choose another output=",
        )
    changed = [name for name, size in files.items() if _size_of(folder / name) != size]
    if changed:
        raise DownloadError(
            f"{folder}: {len(changed)} of {len(files)} files are missing or have another size, "
            f"such as {changed[0]}",
            code="FET-009",
            hint="delete the folder and fetch it again",
        )
    return Fetched(folder=folder, num_files=len(files), num_bytes=sum(files.values()), already=True)


def _size_of(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None


def _write_receipt(dataset: Dataset, content: Unpacked, *, sha256: str) -> None:
    write_json(
        {
            "name": dataset.name,
            "url": dataset.url,
            "checksum": dataset.checksum,
            "sha256": sha256,
            "licence": dataset.licence,
            "citation": dataset.citation,
            "fetched_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "medseg": __version__,
            "files": content.files,
        },
        content.folder / RECEIPT,
    )


def _write_folds(dataset: Dataset, folder: Path) -> None:
    """Write which published fold each training case validates, where folds were published.

    The ids come from the dataset's own list, `dataset.json` in the Decathlon's format. The rule
    holds for the full list only: of another number of cases it would make other folds.
    """
    listed = folder / "dataset.json"
    if dataset.folds is None or not listed.is_file():
        return
    training = read_json(listed, kind=DownloadError, what="a list of cases").get("training")
    images = [
        entry["image"]
        for entry in (training if isinstance(training, list) else ())
        if isinstance(entry, dict) and isinstance(entry.get("image"), str)
    ]
    ids = {PurePosixPath(image).name.partition(".")[0] for image in images}
    if len(ids) == dataset.num_train:
        write_json({"source": dataset.folds.source, "folds": dataset.folds.of(ids)}, folder / FOLDS)


@contextmanager
def _alone(output: Path, name: str) -> Iterator[None]:
    """Keep a second process from fetching the same dataset to the same place."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = FileLock(output / f".{name}.lock", timeout=0)
        lock.acquire()
    except Timeout as fault:
        raise DownloadError(
            f"{output / name}: another process is fetching it",
            code="FET-006",
            hint="wait for it to end",
        ) from fault
    except OSError as fault:
        raise WriteError(
            f"{output}: cannot be written: {fault.strerror}", code="OUT-001"
        ) from fault
    try:
        yield
    finally:
        lock.release()


def _list(catalogue: dict[str, Dataset]) -> None:
    rows = [
        (
            dataset.name,
            dataset.title,
            dataset.modality,
            len(dataset.classes),
            dataset.num_train,
            dataset.num_test,
            dataset.licence,
        )
        for dataset in catalogue.values()
    ]
    table(rows, columns=("name", "of", "modality", "classes", "with mask", "without", "licence"))
    say("medseg fetch NAME output=DIR downloads one of them.")


def _tell(dataset: Dataset, fetched: Fetched) -> None:
    what = f"{fetched.num_files} files, {fetched.num_bytes / 1e6:.1f} MB, in {fetched.folder}"
    if fetched.already:
        say(f"{dataset.name}: already fetched and unchanged: {what}")
    else:
        say(f"{dataset.name}: fetched and checked: {what}")
    say(f"Licence {dataset.licence}. Please cite: {dataset.citation}")
    say(f"Next: medseg ingest {shlex.quote(f'source={fetched.folder}')} patient_is_case=true")
    say("(patient_is_case: nothing in the archive says which cases share a patient)")
