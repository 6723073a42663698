import contextlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dataset_on_paper import paper_case, paper_manifest

from medseg.core.errors import ManifestError, MedsegError
from medseg.core.labels import label_set
from medseg.data.manifest import Case, Manifest, manifest_file, read_manifest, write_manifest
from medseg.data.manifest_schema import (
    CaseJson,
    ChannelJson,
    LabelJson,
    LabelSetJson,
    ManifestJson,
    RegionJson,
)


@pytest.fixture
def full() -> Manifest:
    """A manifest in which every optional key is used."""
    cases = (
        paper_case("007", labels=("a.nii.gz", {"anterior": "b.png"}), annotated=("anterior",)),
        paper_case(
            "7",
            labels=("c.nii", "d.nii"),
            raters=("Ada", "Bob"),
            classes=(),
            stratum="scanner B",
            spacing_mm=(0.5, 0.5, 2.0),
        ),
        paper_case("ü b;$(touch x)=,^[1]", split="test", series_uids={"T1": "1.2.3"}),
        paper_case("last", split="unlabelled", labels=(), digest="aa", image_digest="bb"),
    )
    return paper_manifest(
        cases, citation="Somebody et al.", consensus="staple", num_folds=3, seed=9
    )


def edited(manifest: Manifest, path: Path, **changes: object) -> Path:
    """Write a manifest whose first row has other keys; a value of ... drops the key."""
    write_manifest(manifest, path)
    value = json.loads(path.read_text())
    row = {**value["cases"][0], **changes}
    value["cases"][0] = {name: entry for name, entry in row.items() if entry is not ...}
    path.write_text(json.dumps(value))
    return path


def test_what_is_written_is_read_back_the_same(full, tmp_path):
    write_manifest(full, tmp_path / "manifest.json")
    back = read_manifest(tmp_path)
    by_id = {case.case_id: case for case in full.cases}
    assert {case.case_id: case for case in back.cases} == by_id
    assert (back.name, back.labels, back.channels) == (full.name, full.labels, full.channels)
    assert back.digest == full.digest


def test_a_consensus_is_part_of_the_digest_unless_it_is_the_usual_one(full):
    usual = replace(full, consensus="majority")
    assert len({one.digest for one in (full, usual, replace(full, consensus="soft"))}) == 3
    with pytest.raises(ManifestError, match=r"consensus 'stapel' is unknown.*'staple'"):
        replace(full, consensus="stapel")


def test_ids_stay_text(full, tmp_path):
    write_manifest(full, tmp_path / "manifest.json")
    assert {"007", "7"} <= {case.case_id for case in read_manifest(tmp_path).cases}


def test_a_number_is_not_taken_for_an_id(full, tmp_path):
    path = edited(full, tmp_path / "m.json", case_id=7)
    with pytest.raises(ManifestError, match=r"MAN-001 .*m.json: cases\[0\].case_id: .*found 7"):
        read_manifest(path)


def test_a_mistyped_key_is_answered_with_the_file_the_row_and_the_nearest_key(full, tmp_path):
    path = edited(full, tmp_path / "m.json", patient_id=..., pateint_id="p")
    with pytest.raises(ManifestError, match=r"'007'.*did you mean 'patient_id'") as refusal:
        read_manifest(path)
    assert str(path) in str(refusal.value)


def test_a_missing_patient_is_refused(full, tmp_path):
    path = edited(full, tmp_path / "m.json", patient_id=...)
    with pytest.raises(ManifestError, match=r"patient_id \(case '007'\): is missing"):
        read_manifest(path)
    with pytest.raises(ManifestError, match=r"MAN-002.*patient_is_case"):
        paper_case("a", patient_id=" ")


def test_the_digest_ignores_where_data_lies_and_how_json_is_ordered(full, tmp_path):
    write_manifest(full, tmp_path / "m.json")
    value = json.loads((tmp_path / "m.json").read_text())
    value["cases"].reverse()
    mixed = dict(reversed(value.items())) | {"data_root": "elsewhere"}
    (tmp_path / "n.json").write_text(json.dumps(mixed))
    assert read_manifest(tmp_path / "n.json").digest == full.digest


def test_the_digest_follows_every_other_change(full, tmp_path):
    changes = [{"stratum": "x"}, {"fold": 1, "annotated": ["posterior"]}, {"labels": ["c.nii.gz"]}]
    digests = {
        read_manifest(edited(full, tmp_path / f"{n}.json", **change)).digest
        for n, change in enumerate(changes[:1] + changes[2:])
    }
    assert len({*digests, full.digest}) == 3


@pytest.mark.parametrize(
    "path",
    [
        "../x.nii",
        "a/../../x.nii",
        "/etc/passwd",
        "C:\\x.nii",
        "\\\\host\\x",
        "a\\..\\x",
        "",
        "a\0b",
    ],
)
def test_a_path_out_of_the_data_root_is_refused(path):
    with pytest.raises(ManifestError, match="MAN-003"):
        paper_case("a", images={"T1": path})
    with pytest.raises(ManifestError, match="MAN-003"):
        paper_case("a", labels=({"anterior": path},))


def test_a_name_with_two_dots_in_it_is_only_a_name():
    assert paper_case("a", images={"T1": "a..b/..c.nii"}).image_files == ("a..b/..c.nii",)


def test_a_link_out_of_the_data_root_is_refused_and_one_inside_is_followed(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.nii.gz").write_text("x")
    (root / "inside.nii.gz").write_text("x")
    (root / "out").symlink_to(tmp_path)
    (root / "link.nii.gz").symlink_to(root / "inside.nii.gz")
    manifest = paper_manifest([paper_case("a")], data_root=root)
    assert manifest.path_of("link.nii.gz").read_text() == "x"
    with pytest.raises(ManifestError, match=r"MAN-003.*link"):
        manifest.path_of("out/secret.nii.gz")


def test_a_missing_file_is_named(tmp_path):
    manifest = paper_manifest([paper_case("a")], data_root=tmp_path)
    with pytest.raises(ManifestError, match=r"MAN-007 .*images/a.nii.gz: is missing"):
        manifest.path_of("images/a.nii.gz")


@pytest.mark.parametrize("case_id", ["", "..", "a/b", "a\\b", "a\nb", "x" * 201, "\ud800", " "])
def test_an_id_that_cannot_name_a_file_is_refused(case_id):
    with pytest.raises(ManifestError, match="MAN-002"):
        paper_case(case_id)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": {"T2": "a"}}, "channel 'T2' is unknown.*'T1'"),
        ({"annotated": ("anterio",)}, "did you mean 'anterior'"),
        ({"labels": ({"liver": "a"},)}, "class 'liver' is unknown"),
        ({"fold": 5}, "fold 5; num_folds is 5"),
    ],
)
def test_a_name_that_stands_for_nothing_is_refused(changes, said):
    with pytest.raises(ManifestError, match=said):
        paper_manifest([paper_case("a", **changes)])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": ()}, "is for training but has no label"),
        ({"images": {}}, "names no image"),
        ({"split": "Test"}, "did you mean 'test'"),
        ({"split": "test", "fold": 0}, "only training cases have a fold"),
        ({"fold": -1}, "counted from 0"),
        ({"spacing_mm": (1.0, 0.0, 1.0)}, "three lengths above 0"),
        ({"spacing_mm": (1.0, float("nan"), 1.0)}, "three lengths above 0"),
        ({"raters": ("Ada", "Bob")}, "for 1 annotations"),
        ({"labels": ("a", "b"), "raters": ("Ada", "Ada")}, "a name each"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused(changes, said):
    with pytest.raises(ManifestError, match=said):
        paper_case("a", **changes)


def test_a_case_listed_twice_is_refused():
    with pytest.raises(ManifestError, match=r"MAN-006 case 'a' is listed twice"):
        paper_manifest([paper_case("a"), paper_case("a")])


def test_folds_for_some_cases_only_are_refused():
    with pytest.raises(ManifestError, match="case 'b' names no fold"):
        paper_manifest([paper_case("a", fold=0), paper_case("b")])


def test_test_and_unlabelled_cases_are_not_training_cases(full):
    assert [case.case_id for case in full.training_cases] == ["007", "7"]
    assert [case.case_id for case in full.test_cases] == ["ü b;$(touch x)=,^[1]"]
    assert [case.case_id for case in full.unlabelled_cases] == ["last"]


def test_the_data_root_is_relative_to_the_manifest_wherever_one_stands(tmp_path, monkeypatch):
    root = tmp_path / "set" / "scans"
    manifest = paper_manifest([paper_case("a")], data_root=root)
    write_manifest(manifest, tmp_path / "set" / "manifest.json")
    assert json.loads((tmp_path / "set" / "manifest.json").read_text())["data_root"] == "scans"
    (tmp_path / "set").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    moved = read_manifest(Path("manifest.json")).data_root
    assert moved == tmp_path / "moved" / "scans"


def test_a_data_root_far_from_the_manifest_is_written_in_full(tmp_path):
    manifest = paper_manifest([paper_case("a")], data_root=tmp_path / "scans")
    write_manifest(manifest, tmp_path / "work" / "m.json")
    assert read_manifest(tmp_path / "work" / "m.json").data_root == tmp_path / "scans"
    other = read_manifest(tmp_path / "work" / "m.json", data_root=tmp_path / "other")
    assert other.data_root == tmp_path / "other"


def test_stored_values_other_than_the_index_survive(tmp_path):
    for classes in ({"myelin": 127, "axon": 255}, {"nucleus": ">0"}, {"a": [1, 4]}):
        manifest = paper_manifest([paper_case("a")], labels=label_set(classes))
        write_manifest(manifest, tmp_path / "m.json")
        assert read_manifest(tmp_path / "m.json").labels == manifest.labels


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cases": 3}', "\xff", "[" * 100_000])
def test_what_is_no_manifest_is_refused_in_one_line(text, tmp_path):
    (tmp_path / "m.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ManifestError, match=r"m\.json") as refusal:
        read_manifest(tmp_path / "m.json")
    assert "\n" not in str(refusal.value)


def test_colour_channels_count_three_planes():
    manifest = paper_manifest([paper_case("a")])
    colour = [type(manifest.channels[0])(name="T1", modality="RGB")]
    assert paper_manifest([paper_case("a")], channels=tuple(colour)).planes == (
        "T1_red",
        "T1_green",
        "T1_blue",
    )


def test_cases_survive_the_way_to_another_process():
    import pickle

    case = paper_case("a", labels=({"anterior": "x"},))
    assert isinstance(case, Case)
    assert pickle.loads(pickle.dumps(case)) == case


def test_the_readme_shows_a_manifest_that_is_read_and_names_every_key(tmp_path):
    text = (Path(__file__).parents[1] / "data_manifests" / "README.md").read_text()
    example = text.split("```json")[1].split("```")[0]
    (tmp_path / "manifest.json").write_text(example)
    assert read_manifest(tmp_path).cases[0].case_id == "007"
    for model in (ManifestJson, CaseJson, LabelJson, ChannelJson, RegionJson, LabelSetJson):
        for key in model.model_fields:
            assert f"`{key}`" in text or f"`labels.{key}`" in text or f'"{key}"' in text, key


@pytest.mark.parametrize("seed", range(4))
def test_a_mutated_manifest_is_read_or_refused_and_never_crashes(seed, full, tmp_path):
    write_manifest(full, tmp_path / "m.json")
    text = (tmp_path / "m.json").read_bytes()
    rng = np.random.default_rng(seed)
    for _ in range(150):
        mutated = bytearray(text)
        for at in rng.integers(0, len(mutated), rng.integers(1, 4)):
            mutated[at] = rng.choice([*b'"{}[]:,0-9ae.\\\n', 0, 255])
        (tmp_path / "m.json").write_bytes(mutated)
        with contextlib.suppress(MedsegError):
            read_manifest(tmp_path / "m.json")


def test_a_manifest_may_be_named_by_its_folder(tmp_path):
    assert manifest_file(tmp_path) == tmp_path / "manifest.json"
    assert manifest_file(tmp_path / "other.json") == tmp_path / "other.json"
