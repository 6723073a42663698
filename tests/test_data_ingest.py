import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medseg.core.errors import ManifestError
from medseg.data.ingest import Ingested, ingest
from medseg.data.layouts.found import Request
from medseg.data.layouts.modalities import modality_of
from medseg.data.layouts.patterns import match_paths
from medseg.data.manifest import read_manifest, write_manifest
from medseg.data.splits import fold_of_cases, split_cases

MODALITY = {"image": "CT"}
LIVER = {"liver": (1,)}


def scan(root: Path, *names: str, values: tuple[int, ...] = (0, 1), planes: int = 0) -> None:
    """Write small NIfTI files, each unlike the others."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (3, 3, 3, planes) if planes else (3, 3, 3)
        voxels = np.resize(np.array(values, np.uint8), shape)
        image = nibabel.Nifti1Image(voxels, np.eye(4))
        image.header.set_xyzt_units("mm")
        image.header["descrip"] = name.encode()[-80:]
        nibabel.save(image, path)


def listed(root: Path, value: object, name: str = "dataset.json") -> None:
    (root / name).write_text(json.dumps(value))


def taken(source: Path, layout: str = "auto", **settings: object) -> Ingested:
    request = Request(**{"source": source, "patient_is_case": True, **settings})
    return ingest(request, layout=layout, num_workers=0)


def ids(found: Ingested) -> list[str]:
    return sorted(case.case_id for case in found.manifest.cases)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/{}.nii.gz", "labels/{}.nii.gz"),
        ("imagesTr/{}.nii.gz", "labelsTr/{}.nii"),
        ("{}.nii.gz", "{}_mask.nii.gz"),
        ("{}_image.nii", "{}_label.nii.gz"),
        ("{0}/{0}.nii.gz", "{0}/{0}_seg.nii.gz"),
        ("{}/image.nii.gz", "{}/mask.nii.gz"),
    ],
)
def test_usual_pairs_of_folders_and_names_need_no_pattern(image, label, tmp_path):
    for case in ("a", "b.c", "007"):
        scan(tmp_path, image.format(case), label.format(case))
    found = taken(tmp_path, modalities=MODALITY, labels=LIVER)
    assert found.layout == "pairs"
    assert ids(found) == ["007", "a", "b.c"]
    for case in found.manifest.cases:
        assert case.images == {"image": image.format(case.case_id)}
        assert case.labels == (label.format(case.case_id),)
        assert case.classes == ("liver",)
    assert found.skipped == ()


def test_patterns_name_channels_patients_strata_and_classes(tmp_path):
    for name in ("GE/p1-0/ct.nii", "GE/p1-1/ct.nii", "Philips/p2-0/ct.nii"):
        scan(tmp_path, name, name.replace("ct", "mr"), name.replace("ct", "liver seg"))
        scan(tmp_path, name.replace("ct", "spleen seg"))
    found = taken(
        tmp_path,
        images={c: f"{{stratum}}/{{patient}}-*/{c.lower()}.nii" for c in ("CT", "MR")}
        | {c: f"{{stratum}}/{{case}}/{c.lower()}.nii" for c in ("CT", "MR")},
        raters={"Ada": "{stratum}/{case}/{class} seg.nii"},
        patient=r"(.*)-",
        patient_is_case=False,
    )
    manifest = found.manifest
    assert manifest.labels.names == ("liver", "spleen")
    assert {case.patient_id for case in manifest.cases} == {"p1", "p2"}
    assert {case.stratum for case in manifest.cases} == {"GE", "Philips"}
    assert manifest.cases[0].labels == (
        {"liver": "GE/p1-0/liver seg.nii", "spleen": "GE/p1-0/spleen seg.nii"},
    )
    assert [(c.name, c.modality) for c in manifest.channels] == [("CT", "CT"), ("MR", "MR")]


def test_names_with_spaces_unicode_and_shell_characters_are_taken_as_they_are(tmp_path):
    names = ["a b", "ü", ";$(touch x)=,^[1]{2}", "-rf"]
    scan(tmp_path, *(f"{kind}/{n}.nii.gz" for n in names for kind in ("images", "labels")))
    found = taken(tmp_path, modalities=MODALITY, labels=LIVER)
    write_manifest(found.manifest, tmp_path / "manifest.json")
    assert ids(found) == sorted(names)
    assert {case.case_id for case in read_manifest(tmp_path).cases} == set(names)


def test_images_are_sought_in_the_usual_places_for_labels_that_were_named(tmp_path):
    scan(tmp_path, "images/a.nii.gz", "images/b.nii.gz", "ada/a.nii.gz", "bob/a.nii.gz")
    raters = {"ada": "ada/{case}.nii.gz", "bob": "bob/{case}.nii.gz"}
    found = taken(tmp_path, raters=raters, modalities={"image": "CT"}, labels={"liver": (1,)})
    assert found.manifest.case("a").labels == ("ada/a.nii.gz", "bob/a.nii.gz")
    (tmp_path / "images").rename(tmp_path / "ct")
    with pytest.raises(ManifestError, match=r"images are not where.*images\.CT=") as refused:
        taken(tmp_path, raters=raters)
    assert "label" not in str(refused.value)


def test_what_has_no_partner_or_fits_no_pattern_is_listed(tmp_path):
    scan(tmp_path, "images/a.nii", "images/b.nii", "labels/a.nii", "labels/c.nii", "notes/x.nii")
    found = taken(
        tmp_path,
        images={"CT": "images/{case}.nii"},
        raters={"label": "labels/{case}.nii"},
        labels=LIVER,
    )
    assert [(case.case_id, case.split) for case in found.manifest.cases] == [
        ("a", "train"),
        ("b", "unlabelled"),
    ]
    assert {one.subject: one.reason for one in found.skipped} == {
        "c": "a label of label without an image",
        "notes/x.nii": "fits no pattern",
    }


def test_a_case_that_lacks_a_channel_is_left_out_unless_asked_for(tmp_path):
    scan(tmp_path, "a/ct.nii", "a/pet.nii", "a/m.nii", "b/pet.nii", "b/m.nii")
    settings = {
        "images": {"PET": "{case}/pet.nii", "CT": "{case}/ct.nii"},
        "raters": {"label": "{case}/m.nii"},
        "labels": LIVER,
    }
    found = taken(tmp_path, **settings)
    assert ids(found) == ["a"]
    assert [(one.subject, one.reason) for one in found.skipped] == [("b", "has no CT")]
    assert ids(taken(tmp_path, **settings, keep_incomplete=True)) == ["a", "b"]


def test_a_decathlon_list_gives_channels_classes_and_test_cases(tmp_path):
    scan(tmp_path, "imagesTr/a.nii.gz", "imagesTr/b.nii.gz", "imagesTs/t.nii.gz", planes=2)
    scan(tmp_path, "labelsTr/a.nii.gz", "labelsTr/b.nii.gz", values=(0, 1, 2))
    listed(
        tmp_path,
        {
            "name": "Prostate",
            "reference": "Somebody",
            "modality": {"0": "T2", "1": "ADC"},
            "labels": {"0": "background", "1": "PZ", "2": "TZ"},
            "training": [
                {"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in "ab"
            ],
            "test": ["./imagesTs/t.nii.gz", "./imagesTs/gone.nii.gz"],
        },
    )
    found = taken(tmp_path)
    manifest = found.manifest
    assert (found.layout, manifest.name, manifest.citation) == ("decathlon", "Prostate", "Somebody")
    assert [channel.modality for channel in manifest.channels] == ["MR", "MR"]
    assert manifest.labels.names == ("PZ", "TZ")
    assert manifest.case("a").images == dict.fromkeys(("T2", "ADC"), "imagesTr/a.nii.gz")
    assert [case.case_id for case in manifest.test_cases] == ["t"]
    assert [one.subject for one in found.skipped] == ["gone"]
    listed(tmp_path, {"source": "somewhere", "folds": {"a": 1, "b": 0}}, "folds.json")
    assert fold_of_cases(taken(tmp_path).manifest) == {"a": 1, "b": 0}
    held_back = taken(tmp_path, test=("b",)).manifest
    assert (held_back.case("a").fold, held_back.case("b").fold) == (1, None)
    assert taken(tmp_path, named_folds=False).manifest.case("a").fold is None


def test_an_nnunet_tree_gives_channels_regions_ignore_and_published_folds(tmp_path):
    for case in ("c1", "c2", "c3"):
        scan(tmp_path, f"imagesTr/{case}_0000.nii.gz", f"imagesTr/{case}_0001.nii.gz")
        scan(tmp_path, f"labelsTr/{case}.nii.gz", values=(0, 1, 2, 9))
    scan(tmp_path, "imagesTs/t1_0000.nii.gz", "imagesTs/t1_0001.nii.gz", "labelsTs/t1.nii.gz")
    scan(tmp_path, "imagesTr/c4_0000.nii.gz", "imagesTr/c4_0001.nii.gz")
    listed(
        tmp_path,
        {
            "channel_names": {"0": "CT", "1": "PET"},
            "labels": {"background": 0, "whole": [1, 2], "core": [2], "ignore": 9},
            "file_ending": ".nii.gz",
            "numTraining": 3,
        },
    )
    folds = [{"train": ["c2", "c3"], "val": ["c1"]}, {"train": ["c1"], "val": ["c2", "c3"]}]
    listed(tmp_path, folds, "splits_final.json")
    found = taken(tmp_path)
    labels = found.manifest.labels
    assert found.layout == "nnunet"
    assert [label.values for label in labels.labels] == [(1,), (2,)]
    assert {r.name: r.members for r in labels.regions} == {
        "whole": ("value 1", "core"),
        "core": ("core",),
    }
    assert labels.ignore_value == 9
    assert labels.things == ()
    assert taken(tmp_path, things=("core",)).manifest.labels.things == (2,)
    assert fold_of_cases(found.manifest) == {"c1": 0, "c2": 1, "c3": 1}
    assert [case.case_id for case in found.manifest.test_cases] == ["t1"]
    assert found.manifest.test_cases[0].labels == ("labelsTs/t1.nii.gz",)
    assert [one.subject for one in found.skipped] == ["c4"]


@pytest.mark.parametrize("text", ["{", "[]", '{"training": 3}', '{"channel_names": {"x": 1}}'])
def test_a_list_that_is_not_one_is_refused_by_name(text, tmp_path):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(ManifestError, match=r"dataset\.json"):
        taken(tmp_path)


def bids(root: Path) -> Path:
    listed(root, {"Name": "axons", "BIDSVersion": "1.7.0"}, "dataset_description.json")
    for subject, sample in (("sub-1", "A"), ("sub-1", "B"), ("sub-2", "A")):
        stem = f"{subject}_sample-{sample}_SEM"
        pixels = np.resize(np.array([0, 127, 255, len(stem)], np.uint8), (6, 5))
        pixels[0, 0] = ord(sample) + 10 * int(subject[-1])
        for folder, ending in ((root, ""), (root / "derivatives/labels", "_seg-both")):
            place = folder / subject / "micr"
            place.mkdir(parents=True, exist_ok=True)
            stored = pixels if not ending else np.resize(np.array([0, 127, 255], np.uint8), (6, 5))
            Image.fromarray(stored).save(place / f"{stem}{ending}.png")
        for kind in ("axon", "myelin"):
            Image.fromarray(np.eye(6, 5, dtype=np.uint8) * 255).save(
                place / f"{stem}_seg-{kind}.png"
            )
    size = {"PixelSize": [0.1, 0.2], "PixelSizeUnits": "um"}
    listed(root / "sub-1", size, "sub-1_SEM.json")
    nearer = {"PixelSize": [50, 50], "PixelSizeUnits": "nm"}
    listed(root / "sub-1" / "micr", nearer, "sub-1_sample-B_SEM.json")
    return root


def test_a_bids_tree_gives_patients_spacing_and_the_chosen_mask(tmp_path):
    found = taken(
        bids(tmp_path),
        raters={"label": "seg-both"},
        labels={"myelin": (127,), "axon": (255,)},
        patient_is_case=False,
    )
    manifest = found.manifest
    assert (found.layout, manifest.spatial_dims) == ("bids", 2)
    assert [channel.modality for channel in manifest.channels] == ["microscopy"]
    cases = {case.case_id: case for case in manifest.cases}
    assert {case.patient_id for case in manifest.cases} == {"sub-1", "sub-2"}
    assert cases["sub-1_sample-A"].spacing_mm == pytest.approx((1e-4, 2e-4, 1e-4))
    assert cases["sub-1_sample-B"].spacing_mm == pytest.approx((5e-5, 5e-5, 5e-5))
    assert cases["sub-2_sample-A"].spacing_mm is None
    assert cases["sub-2_sample-A"].classes == ("myelin", "axon")


def test_a_mask_belongs_to_the_image_with_the_longest_name_before_it(tmp_path):
    listed(tmp_path, {"Name": "runs"}, "dataset_description.json")
    scan(tmp_path, "sub-1/anat/sub-1_T1w.nii", "sub-1/anat/sub-1_run-2_T1w.nii")
    scan(tmp_path, "derivatives/me/sub-1/anat/sub-1_run-2_T1w_seg.nii")
    scan(tmp_path, "sourcedata/sub-1/anat/sub-1_run-9_T1w.nii")
    manifest = taken(tmp_path, labels=LIVER).manifest
    assert {case.case_id: len(case.labels) for case in manifest.cases} == {
        "sub-1": 0,
        "sub-1_run-2": 1,
    }


def test_several_kinds_of_masks_in_a_bids_tree_must_be_chosen_from(tmp_path):
    with pytest.raises(ManifestError, match=r"ING-005 .*seg-axon, seg-both, seg-myelin"):
        taken(bids(tmp_path), labels=LIVER)


def test_a_file_a_class_in_a_bids_tree_is_named_by_its_pattern(tmp_path):
    settings = {"raters": {"label": "seg-{class}"}, "labels": {"axon": (1,), "myelin": (2,)}}
    found = taken(bids(tmp_path), **settings)
    assert set(found.manifest.case("sub-2_sample-A").labels[0]) == {"axon", "myelin"}


def table(root: Path, text: str) -> Path:
    scan(root, "s/1.nii", "s/2.nii", "m/1.nii", "m/2.nii", "n/1.nii", "n/2.nii")
    (root / "cases.csv").write_text(text)
    return root / "cases.csv"


def test_a_table_fills_every_key_of_a_case(tmp_path):
    source = table(
        tmp_path,
        "case_id;patient_id;image.CT;label.Ada;label.Bob;split;stratum;spacing_mm;annotated;age\n"
        "007;p1;s/1.nii;m/1.nii;n/1.nii;train;GE;1 1 1;liver;50\n"
        "7;p2;s/2.nii;m/2.nii;;test;;;;\n",
    )
    found = taken(source, labels=LIVER, patient_is_case=False)
    first, second = (found.manifest.case(name) for name in ("007", "7"))
    assert found.layout == "csv"
    assert first.labels == ("m/1.nii", "n/1.nii")
    assert (first.raters, second.raters) == (("Ada", "Bob"), ("Ada",))
    assert (first.stratum, first.spacing_mm, first.annotated) == ("GE", (1, 1, 1), ("liver",))
    assert (second.patient_id, second.split, second.labels) == ("p2", "test", ("m/2.nii",))


@pytest.mark.parametrize("start", ["", "{root}/"])
@pytest.mark.parametrize(
    ("place", "below"), [("elsewhere", ""), ("data/lists", "../"), ("data", "")]
)
def test_a_table_may_lie_outside_the_data_or_in_a_folder_of_it(tmp_path, start, place, below):
    data = tmp_path / "data"
    table(data, "")
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    source = tmp_path / place / "list.csv"
    start = start.format(root=data) or below
    source.write_text(f"case_id,image,label\n1,{start}s/1.nii,{start}m/1.nii\n")
    found = taken(source, labels=LIVER, modalities=MODALITY, data_root=data)
    assert found.manifest.data_root == data
    (case,) = found.manifest.cases
    assert (dict(case.images), case.labels) == ({"image": "s/1.nii"}, ("m/1.nii",))


def test_columns_and_patterns_read_a_table_that_holds_no_paths(tmp_path):
    source = table(tmp_path, "id,kind\n1,dark\n2,color\n")
    found = taken(
        source,
        columns={"case_id": "id", "stratum": "kind"},
        images={"CT": "s/{id}.nii"},
        raters={"label": "m/{id}.nii"},
        labels=LIVER,
    )
    assert [case.stratum for case in found.manifest.cases] == ["dark", "color"]
    assert found.manifest.case("2").images == {"CT": "s/2.nii"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("case_id,patient_id,imag\n", r"CSV-006 .*'imag' is unknown; did you mean 'image'"),
        ("case,image\n1,s/1.nii\n", r"CSV-006 .*column 'case_id' is unknown"),
        ("case_id,pateint_id,image\n", r"CSV-006 .*did you mean 'patient_id'"),
        ("case_id,patient_id\n1,2\n", r"CSV-006 .*no column image"),
        ("case_id,image,fold\n1,s/1.nii,one\n", r"CSV-007 .*line 2: found 'one'"),
        ("case_id,image,split\n1,s/1.nii,tset\n", r"CSV-007 .*line 2: found split 'tset'"),
        ('case_id,image,spacing_mm\n1,s/1.nii,"1,5 1 1"\n', r"CSV-007 .*three lengths"),
        ("case_id,image,label\n1,../1.nii,m/1.nii\n", r"CSV-007 .*line 2: found '.*a path below"),
        (
            "case_id,image,label\n1,/etc/passwd,m/1.nii\n",
            r"CSV-007 .*line 2: found '.*a path below",
        ),
        ("case_id,image,label\n1,s/1.nii,m/1.nii\n1,s/2.nii,m/2.nii\n", r"MAN-006 case '1'"),
        ("case_id,patient_id,image,label\n1,,s/1.nii,m/1.nii\n", r"ING-008 case '1'"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused_with_its_line(text, said, tmp_path):
    with pytest.raises(ManifestError, match=said):
        taken(
            table(tmp_path, text),
            labels=LIVER,
            modalities=MODALITY,
            patient_is_case="patient" not in text,
        )


def pairs(root: Path, *names: str, **mask: tuple[int, ...]) -> Path:
    scan(root, *(f"images/{name}.nii" for name in names))
    for name in names:
        scan(root, f"labels/{name}.nii", values=mask.get(name, (0, 1)))
    return root


def test_a_case_that_cannot_be_read_is_left_out_and_the_rest_goes_on(tmp_path):
    pairs(tmp_path, "a", "b", "c", b=(0, 7))
    (tmp_path / "labels" / "c.nii").write_bytes(b"")
    found = taken(tmp_path, modalities=MODALITY, labels=LIVER)
    assert ids(found) == ["a"]
    failed = {one.subject: one.reason for one in found.skipped if one.failed}
    assert failed["b"].startswith("LBL-003")
    assert "c.nii" in failed["c"]


def test_a_first_scan_that_cannot_be_read_does_not_refuse_the_others(tmp_path):
    pairs(tmp_path, "a", "b")
    scan = next((tmp_path / "images").glob("a.nii*"))
    scan.write_bytes(scan.read_bytes()[:-9])
    found = taken(tmp_path, modalities=MODALITY, labels=LIVER)
    assert "b" in ids(found)
    assert found.manifest.spatial_dims == 3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"modalities": {}}, r"ING-010 channel 'image'.*channels\.image=CT"),
        ({"labels": {}}, r"ING-011 .*labels/a\.nii holds 0, 1; declare"),
        ({"patient_is_case": False}, r"ING-008 case 'a'.*patient_is_case=true"),
        ({"patient": "x(y)"}, r"ING-008 case 'a': patient=x\(y\) finds no patient"),
        ({"test": ("z*",)}, r"ING-009 test: 'z\*' fits no case"),
        ({"exclude": ("z",)}, r"ING-009 exclude: 'z' fits no case"),
        ({"images": {"image": "{cas}.nii"}}, r"ING-001 .*\{cas\} is unknown.*\{case\}"),
        ({"images": {"image": "x/{case}.nii"}}, r"ING-002 images\.image.*fits none of 4 scans"),
        ({"images": {"image": "*/{case}.nii"}}, r"ING-003 case 'a'.*both fit"),
        ({"images": {"image": "images/a.nii"}}, r"ING-001 .*expected \{case\}"),
        ({"reference_channel": "imag"}, r"MAN-005 .*did you mean 'image'"),
        ({"data_root": Path("/usr")}, r"ING-012 .*does not lie below data_root"),
    ],
)
def test_what_the_user_must_say_is_asked_for(settings, said, tmp_path):
    pairs(tmp_path, "a", "b")
    with pytest.raises(ManifestError, match=said):
        taken(tmp_path, **{"modalities": MODALITY, "labels": LIVER, **settings})


def test_one_image_under_two_patients_is_refused_at_ingest(tmp_path):
    pairs(tmp_path, "a", "b")
    (tmp_path / "images" / "b.nii").write_bytes((tmp_path / "images" / "a.nii").read_bytes())
    with pytest.raises(ManifestError, match=r"SPL-003 cases 'a'.*'b'"):
        taken(tmp_path, modalities=MODALITY, labels=LIVER)


def test_test_and_excluded_cases_are_chosen_by_pattern(tmp_path):
    pairs(tmp_path, "a1", "a2", "b1", "c1")
    found = taken(tmp_path, modalities=MODALITY, labels=LIVER, test=("a*",), exclude=("c?",))
    assert ids(found) == ["a1", "a2", "b1"]
    assert [case.case_id for case in found.manifest.test_cases] == ["a1", "a2"]


def test_a_data_root_above_the_source_prefixes_every_path(tmp_path):
    pairs(tmp_path / "deep" / "set", "a")
    found = taken(tmp_path / "deep" / "set", data_root=tmp_path, modalities=MODALITY, labels=LIVER)
    assert found.manifest.cases[0].files == ("deep/set/images/a.nii", "deep/set/labels/a.nii")


def test_digests_follow_bytes_and_not_names(tmp_path):
    pairs(tmp_path / "one", "a")
    (tmp_path / "one").rename(tmp_path / "two")
    first = taken(tmp_path / "two", modalities=MODALITY, labels=LIVER).manifest.cases[0]
    scan(tmp_path / "two", "labels/a.nii", values=(1, 1))
    second = taken(tmp_path / "two", modalities=MODALITY, labels=LIVER).manifest.cases[0]
    assert first.image_digest == second.image_digest
    assert first.digest != second.digest


def test_linked_folders_are_entered_once_and_those_outside_are_refused(tmp_path):
    pairs(tmp_path / "set" / "real", "a")
    (tmp_path / "set" / "real" / "circle").symlink_to(tmp_path / "set")
    settings = {
        "images": {"CT": "{case}/images/a.nii"},
        "raters": {"label": "{case}/labels/a.nii"},
        "labels": LIVER,
    }
    assert ids(taken(tmp_path / "set", **settings)) == ["real"]
    pairs(tmp_path / "outside", "a")
    (tmp_path / "set" / "link").symlink_to(tmp_path / "outside")
    found = taken(tmp_path / "set", **settings)
    assert ids(found) == ["real"]
    assert [(one.subject, one.reason[:7]) for one in found.skipped] == [("link", "MAN-003")]


def test_a_source_that_is_not_there_or_holds_nothing_is_refused(tmp_path):
    with pytest.raises(ManifestError, match=r"ING-006 source .*is missing"):
        taken(tmp_path / "nowhere")
    with pytest.raises(ManifestError, match=r"ING-006 .*looks like none of"):
        taken(tmp_path)
    with pytest.raises(ManifestError, match=r"MAN-005 layout 'nnunett'.*did you mean 'nnunet'"):
        taken(tmp_path, layout="nnunett")


def test_a_repeated_place_stands_for_the_same_text():
    paths = ["a/a.nii", "a/b.nii"]
    assert [match.path for match in match_paths("{case}/{case}.nii", paths)] == ["a/a.nii"]


@pytest.mark.parametrize(
    ("name", "modality"),
    [("CT", "CT"), ("T1w", "MR"), ("flair", "MR"), ("PET", "PT"), ("image", ""), ("Primary", "")],
)
def test_a_modality_is_known_by_whole_names_only(name, modality):
    assert modality_of(name) == modality


def test_the_hippocampus_set_gives_166_and_42(shared_data):
    source = shared_data("hippocampus")
    found = taken(source, test=()).manifest
    split = split_cases(found, 0)
    assert (len(split.training), len(split.validation)) == (166, 42)
    assert found.labels.names == ("Anterior", "Posterior")


def test_the_nuclei_are_spread_over_both_stains(shared_data):
    found = taken(
        shared_data("dsb2018_nuclei") / "index.tsv",
        columns={"case_id": "id", "stratum": "kind"},
        images={"image": "images/{id}.png"},
        raters={"label": "instances/{id}.png"},
        modalities={"image": "RGB"},
        labels={"nucleus": ">0"},
    ).manifest
    for fold in range(5):
        kinds = [case.stratum for case in split_cases(found, fold).validation]
        assert kinds.count("dark") in (19, 20)
        assert kinds.count("color") in (8, 9)


def test_the_two_raters_of_the_head_set_are_two_annotations(shared_data):
    raters = ("oncologist", "radiographer")
    found = ingest(
        Request(
            source=shared_data("oar_two_raters"),
            images={"CT": "oncologist/{case}/segmentations/Brain.nrrd"},
            raters={r: f"{r}/{{case}}/segmentations/{{class}}.nrrd" for r in raters},
            labels={"Mandible": (1,), "Cochlea-Lt": (2,)},
            spatial_dims=3,
            patient_is_case=True,
        ),
        read_masks=False,
        num_workers=0,
    ).manifest
    assert [len(case.labels) for case in found.cases] == [2, 2]
    assert set(found.cases[0].labels[0]) == {"Mandible", "Cochlea-Lt"}
    assert {case.raters for case in found.cases} == {raters}
