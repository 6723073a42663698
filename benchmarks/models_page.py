"""Which network? docs/models.md, made of the registry and of the ledgers in benchmarks/results.

usage: python -m benchmarks.models_page [--output docs/models.md]

Nothing is measured here, and every draw has a fixed seed: the same ledgers make the same page.
`python -m benchmarks.keep` puts finished ledgers where this reads them.
"""

import argparse
from pathlib import Path

from benchmarks.keep import RESULTS, rows_in
from benchmarks.page_families import families_section
from benchmarks.page_gpu import gpu_section
from benchmarks.page_networks import networks_section
from benchmarks.page_objects import objects_section
from benchmarks.page_sides import lesions_section, partial_section, scarce_section

PAGE = Path(__file__).parents[1] / "docs" / "models.md"

_SECTIONS = {
    "families": families_section,
    "gpu": gpu_section,
    "objects": objects_section,
    "small_lesions": lesions_section,
    "partial_labels": partial_section,
    "scarce_labels": scarce_section,
}
_TITLE = "# Which network?\n\nThis page is made by `python -m benchmarks.models_page`."
_FROM_ROWS = """\
What was measured comes from the rows in [benchmarks/results](../benchmarks/results), each with the
commit it was measured on; below every table stands the command that measures it again. Each
MANIFEST is one that `python -m benchmarks.manifests DATA FOLDER` makes of public scans."""


def main() -> None:
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--output", type=Path, default=PAGE)
    chosen = words.parse_args()
    chosen.output.write_text(models_page())


def models_page(results: Path = RESULTS) -> str:
    """Return the whole page; a section whose ledger is absent is left out."""
    made = (make(rows_in(results / f"{name}.jsonl")) for name, make in _SECTIONS.items())
    sections = [section for section in made if section]
    measured = [_FROM_ROWS, *sections] if sections else []
    return "\n\n".join([_TITLE, *measured, networks_section()]) + "\n"


if __name__ == "__main__":
    main()
