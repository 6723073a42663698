"""Tables of cases as spreadsheets save them, rightly and wrongly: row 75."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.bad_images import REFUSED, RIGHT
from benchmarks.tiny_set import write_tiny_set
from benchmarks.trial import Oracle, Trial, Want
from medseg.data.manifest import read_manifest

_HEADER = "case_id,patient_id,image.T1,label"


def bad_tables(folder: Path) -> Iterator[Trial]:
    """Write the tables beside the files they list, and yield what is done with each."""
    manifest = write_tiny_set(folder)
    cases = read_manifest(manifest).training_cases
    ids = ["007", "1e5", "00", "1.0", "null", "TRUE"]
    lines = [
        _HEADER,
        *(
            f"{name},p{name},{case.images['T1']},{case.label_files[0]}"
            for name, case in zip(ids, cases, strict=True)
        ),
    ]
    text = "\n".join(lines) + "\n"
    short = "\n".join([*lines[:3], lines[3].rpartition(",")[0], *lines[4:]])
    listed: list[tuple[str, bytes, tuple[Want, ...]]] = [
        ("ids that look like numbers", text.encode(), RIGHT),
        ("a byte-order mark and CRLF", text.replace("\n", "\r\n").encode("utf-8-sig"), RIGHT),
        ("semicolons", text.replace(",", ";").encode(), RIGHT),
        ("two columns of one name", text.replace("label", "image.T1", 1).encode(), REFUSED),
        ("a row that is too short", short.encode(), REFUSED),
        ("not UTF-8", text.replace("007", "M\xfcller").encode("latin-1"), REFUSED),
        ("a column misspelt", text.replace("patient_id", "patientid", 1).encode(), REFUSED),
    ]
    for number, (name, content, wants) in enumerate(listed):
        table, output = folder / f"cases_{number}.csv", folder / "out" / f"{number}.json"
        table.write_bytes(content)
        yield Trial(
            row=75,
            name=name,
            line=(
                "ingest", f"source={table}", f"output={output}", "channels.T1=MR",
                "labels.ball=1", "num_workers=0",
            ),
            wants=wants,
            oracle=_ids_of(output, ids),
        )  # fmt: skip


def _ids_of(manifest: Path, ids: list[str]) -> Oracle:
    def oracle() -> str:
        found = sorted(case.case_id for case in read_manifest(manifest).cases)
        return "" if found == sorted(ids) else f"ids {found}"

    return oracle
