"""Public scans become the manifests that docs/models.md was measured on."""

import numpy as np

from benchmarks.manifests import make_manifest
from medseg.data.manifest import read_manifest
from medseg.data.object_ids import read_ids
from medseg.data.scans import read_reference, read_scan


def test_a_volume_of_nuclei_becomes_two_halves_that_share_no_voxel(shared_data, tmp_path):
    folder = shared_data("stardist_sample").parent
    manifest = read_manifest(make_manifest("stardist3d", folder, tmp_path))
    whole = read_manifest(tmp_path / "whole" / "manifest.json")
    assert [case.case_id for case in manifest.cases] == ["3d_0", "3d_1"]
    assert [case.fold for case in manifest.cases] == [0, 1]
    scans = [read_scan(manifest, case) for case in manifest.cases]
    (case,) = whole.cases
    uncut = read_scan(whole, case)
    axis = 1 + int(np.argmax(uncut.geometry.shape))
    assert np.array_equal(np.concatenate([scan.voxels for scan in scans], axis), uncut.voxels)
    ids = [
        read_ids(manifest, case, read_reference(manifest, case, scan.geometry))
        for case, scan in zip(manifest.cases, scans, strict=True)
    ]
    assert all(one.max() > 10 for one in ids)
