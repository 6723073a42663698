import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.core.errors import ManifestError
from medseg.data.tables import read_table

CELL = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1)


def table_of(content: bytes, tmp_path):
    (tmp_path / "table.csv").write_bytes(content)
    return read_table(tmp_path / "table.csv")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("separator", [b",", b";", b"\t"])
def test_marks_line_ends_and_separators_give_the_same_table(mark, end, separator, tmp_path):
    lines = [b"id,kind", b"007,dark", b"", b"7,color", b""]
    table = table_of(mark + end.join(lines).replace(b",", separator), tmp_path)
    assert table.columns == ("id", "kind")
    assert [dict(row.values) for row in table.rows] == [
        {"id": "007", "kind": "dark"},
        {"id": "7", "kind": "color"},
    ]
    assert [row.line for row in table.rows] == [2, 4]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"id,kind,id\n1,2,3\n", "CSV-003 .*two columns are named 'id'"),
        (b"id,,kind\n1,2,3\n", "CSV-003 .*column 2 has no name"),
        (b"id,kind\n1,2\n1,2,3\n", "CSV-004 .*line 3 has 3 values; expected 2"),
        (b"id,kind\n1\n", "CSV-004 .*line 2 has 1 values"),
        (b"id,kind;x\n1,2;3\n", "CSV-002 .*commas and semicolons"),
        (b'id,kind\n"1,2\n', "CSV-005"),
        (b'id,kind\n"1"x,2\n', "CSV-005"),
        (b"id,kind\n\xfc,2\n", "CSV-001 .*byte 8 is not UTF-8"),
        ("id,kind\n".encode("utf-16"), "CSV-001"),
        (b"id\0,kind\n", "CSV-001"),
        (b"", "CSV-001 .*empty"),
    ],
)
def test_a_doubtful_table_is_refused(content, said, tmp_path):
    with pytest.raises(ManifestError, match=said):
        table_of(content, tmp_path)


def test_a_missing_column_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(ManifestError, match=r"CSV-006 .*'patient_id'.*did you mean 'pateint_id'"):
        table_of(b"id,pateint_id\n1,2\n", tmp_path).require(["patient_id"])


@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5))
def test_quoted_text_of_any_kind_is_read_as_it_was_written(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "t.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([("id", "kind"), *rows])
    expected = [(a.strip(), b.strip()) for a, b in rows if a.strip() or b.strip()]
    assert [tuple(row.values.values()) for row in read_table(path).rows] == expected
