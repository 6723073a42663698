"""Every refusal has a code, and every prefix of a code stands in the documentation."""

import pickle
import re
from pathlib import Path

import pytest

from medseg.core import errors
from medseg.core.findings import finding_of

ROOT = Path(__file__).resolve().parents[1]
KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.MedsegError)
]
CODE = re.compile(r"\b([A-Z]{3})-\d{3}\b")
# Words of the same shape that are no codes of ours.
OTHERS = {"SHA"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_refusal_without_a_code_of_its_own_has_that_of_its_kind(kind):
    refusal = kind("file.nii: is torn", hint="copy it again")
    assert CODE.fullmatch(refusal.code)
    assert refusal.code.endswith("-000")
    assert str(refusal) == f"{refusal.code} file.nii: is torn; copy it again"
    assert finding_of(refusal, "a").code == refusal.code


def test_kinds_do_not_share_a_code():
    assert len({kind.kind_code for kind in KINDS}) == len(KINDS) > 5


def test_a_code_of_its_own_survives_the_way_between_processes():
    refusal = pickle.loads(pickle.dumps(errors.ReadError("a: b", code="NII-004", hint="c")))
    assert (type(refusal), refusal.code, refusal.hint) == (errors.ReadError, "NII-004", "c")


def test_every_prefix_of_a_code_is_documented():
    listed = (ROOT / "docs/outputs.md").read_text().partition("## Codes")[2]
    known = set(re.findall(r"\b[A-Z]{3}\b", listed))
    used = {
        found[1]
        for path in (ROOT / "medseg").rglob("*.py")
        for found in CODE.finditer(path.read_text())
    }
    assert used - OTHERS <= known
    assert {kind.kind_code[:3] for kind in KINDS} <= known


def test_the_codes_of_settings_are_all_documented():
    listed = set(re.findall(r"CFG-\d{3}", (ROOT / "docs/outputs.md").read_text()))
    text = "".join(path.read_text() for path in (ROOT / "medseg").rglob("*.py"))
    assert set(re.findall(r"CFG-\d{3}", text)) == listed
