"""Damaged files of every format: read as something, or refused by name, never anything else."""

import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image

from medseg.core.errors import MedsegError
from medseg.io.formats import read_volume

HEADER_BYTES = {
    "n1.nii": 352, "n2.nii": 544, "gz.nii.gz": 1000, "a.nrrd": 420, "b.nhdr": 420, "c.mha": 420,
    "d.png": 1000, "e.tif": 1000, "f.jpg": 700, "g.mhd": 420, "h.seg.nrrd": 420,
}  # fmt: skip


def write_good(folder: Path) -> dict[str, Path]:
    """Write one small file a format with other libraries."""
    rng = np.random.default_rng(5)
    voxels = rng.integers(0, 200, (9, 8, 7), dtype=np.int16)
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    image = nibabel.Nifti1Image(voxels, affine)
    image.set_qform(affine, code=1)
    nibabel.save(image, folder / "n1.nii")
    nibabel.save(image, folder / "gz.nii.gz")
    nibabel.save(nibabel.Nifti2Image(voxels, affine), folder / "n2.nii")
    volume = SimpleITK.GetImageFromArray(voxels)
    SimpleITK.WriteImage(volume, folder / "a.nrrd")
    SimpleITK.WriteImage(volume, folder / "b.nhdr")
    SimpleITK.WriteImage(volume, folder / "c.mha", useCompression=True)
    SimpleITK.WriteImage(volume, folder / "g.mhd")
    volume.SetMetaData("Segment0_ID", "one")
    SimpleITK.WriteImage(volume, folder / "h.seg.nrrd", useCompression=True)
    pixels = voxels[..., 0].astype(np.uint8)
    Image.fromarray(pixels).save(folder / "d.png")
    Image.fromarray(np.stack([pixels] * 3, axis=-1)).save(folder / "f.jpg")
    tifffile.imwrite(folder / "e.tif", voxels.astype(np.uint16), compression="zlib")
    return {name: folder / name for name in HEADER_BYTES}


def mutate(content: bytes, num_header_bytes: int, rng: np.random.Generator) -> bytes:
    """Change one to four bytes of the header, or cut or lengthen the file."""
    damaged = bytearray(content)
    kind = rng.integers(0, 10)
    if kind == 0:
        return bytes(damaged[: rng.integers(0, len(damaged))])
    if kind == 1:
        return bytes(damaged) + rng.bytes(int(rng.integers(1, 9000)))
    for _ in range(rng.integers(1, 5)):
        position = int(rng.integers(0, min(num_header_bytes, len(damaged))))
        damaged[position] = rng.choice([0, 1, 127, 128, 255, int(rng.integers(0, 256))])
    return bytes(damaged)


def refusal_of(path: Path) -> MedsegError | None:
    """Read a file with warnings as errors; return the refusal."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            read_volume(path)
        except MedsegError as refusal:
            return refusal
    return None


def fuzz(name: str, path: Path, seeds: range) -> None:
    content = path.read_bytes()
    for seed in seeds:
        path.write_bytes(mutate(content, HEADER_BYTES[name], np.random.default_rng(seed)))
        try:
            refusal = refusal_of(path)
        except Exception as fault:
            fault.add_note(f"{name}, seed {seed}")
            raise
        if refusal is not None:
            assert refusal.code, (seed, refusal)
            assert "\n" not in str(refusal)
            assert name.split(".")[0] in str(refusal), (seed, refusal)


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], dict[str, Path]]:
    folder = tmp_path_factory.mktemp("good")
    return lambda: write_good(folder)


@pytest.mark.parametrize("name", HEADER_BYTES)
def test_a_damaged_header_is_read_or_refused_with_a_code(name, good):
    fuzz(name, good()[name], range(300))


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADER_BYTES)
def test_thousands_of_damaged_headers_are_read_or_refused_with_a_code(name, good):
    fuzz(name, good()[name], range(1000, 6000))
