"""Grids in all 48 orientations, and DICOM series on them, made in code."""

from itertools import permutations, product

import numpy as np

from medseg.core.geometry import Geometry
from medseg.core.volume import Volume
from medseg.io.dicom.reader import read_dicom
from medseg.io.dicom.series_writer import write_series

SHAPE = (5, 4, 3)


def signed_permutations():
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        axes = np.zeros((3, 3))
        axes[order, range(3)] = signs
        yield axes


def affine_of(axes):
    affine = np.eye(4)
    affine[:3, :3] = axes
    return affine


def turned(axes, *, spacing_mm=(0.8, 1.1, 2.3), oblique=True):
    about_z = np.array([[0.9, -np.sqrt(0.19), 0], [np.sqrt(0.19), 0.9, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])
    affine = np.eye(4)
    affine[:3, :3] = (about_z @ about_x if oblique else np.eye(3)) @ axes * spacing_mm
    affine[:3, 3] = 12.5, -80.25, 1003.125
    return Geometry(SHAPE, affine)


def write_scan(geometry, folder, voxels=None):
    if voxels is None:
        voxels = np.arange(np.prod(geometry.shape), dtype=np.int16).reshape(geometry.shape) - 1000
    write_series(
        Volume(voxels[None], geometry), folder, modality="CT", patient_id="phantom", seed="scan"
    )
    return read_dicom(folder)
