"""What a dataset measures: voxels of classes, counted by hand."""

import nibabel
import numpy as np
import pytest
from dataset_on_paper import paper_case, paper_manifest

from medseg.planning.measure import measure

# Voxels of the classes anterior and posterior in each case, of 100.
DRAWN = {"both": (10, 4), "front": (30, 0), "again": (2, 50)}


@pytest.fixture
def measured(tmp_path):
    """Return the measured shares of voxels, given which classes each case was annotated for."""

    def shares(**annotated):
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir()
        for name, (front, back) in DRAWN.items():
            label = np.zeros(100, np.uint8)
            label[:front], label[front : front + back] = 1, 2
            for folder in ("images", "labels"):
                voxels = nibabel.Nifti1Image(label.reshape(10, 5, 2), np.eye(4))
                nibabel.save(voxels, tmp_path / folder / f"{name}.nii.gz")
        cases = [paper_case(name, annotated=annotated.get(name)) for name in DRAWN]
        found = measure(paper_manifest(cases, data_root=tmp_path))
        return found.class_share

    return shares


def test_classes_annotated_everywhere_are_counted_everywhere(measured):
    assert measured() == ((300 - 42 - 54) / 300, 42 / 300, 54 / 300)


def test_a_class_is_counted_where_it_was_annotated_alone(measured):
    # In the last case somebody left voxels of a class that was not to be annotated.
    shares = measured(front=("anterior",), again=("anterior",))
    assert shares == pytest.approx((1 - 0.14 - 0.04, 0.14, 0.04))


def test_a_class_annotated_nowhere_has_no_share(measured):
    shares = measured(**dict.fromkeys(DRAWN, ("anterior",)))
    assert shares == pytest.approx((1 - 0.14, 0.14, 0))
