"""The manifests that the tables of docs/models.md were measured on, ingested anew.

usage: python -m benchmarks.manifests DATA OUTPUT [--only NAME,...]

DATA holds, a folder each, the public datasets that `_DATASETS` names: Decathlon's hippocampus, the
sarcomas of TCIA in PET, nuclei of the Data Science Bowl of 2018 (BBBC038), the micrographs of
AxonDeepSeg, the volume that StarDist ships, and one patient of the open MS data. Each becomes
OUTPUT/NAME/manifest.json; the last two, of one scan each, are cut into halves first
(`benchmarks.halves`). Folds are drawn by `medseg ingest`, alike on every machine.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from benchmarks.commands import medseg
from benchmarks.halves import halve


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """How a folder of scans becomes a manifest.

    Attributes:
        source: below DATA.
        words: settings of `medseg ingest`.
        in_halves: the one scan becomes two cases.
    """

    source: str
    words: tuple[str, ...]
    in_halves: bool = False


_DATASETS = {
    "hippocampus": Dataset(source="hippocampus", words=("patient_is_case=true",)),
    "sts_tumour_pet": Dataset(
        source="sts_tumour",
        words=(
            "images.PET='nifti/{case}/PET_image.nii.gz'", "label='nifti/{case}/PET_mask.nii.gz'",
            "channels.PET=PT", "labels.tumour=1", "patient_is_case=true",
        ),
    ),
    "dsb2018": Dataset(
        source="dsb2018_nuclei/index.tsv",
        words=(
            "columns.case_id=id", "columns.patient_id=id", "columns.stratum=kind",
            "images.image='images/{id}.png'", "label='instances/{id}.png'", "channels.image=RGB",
            "labels.nucleus='>0'", "things=[nucleus]",
        ),
    ),
    "axons": Dataset(
        source="axondeepseg_sem",
        words=(
            "name=data_axondeepseg_sem", "label=seg-axonmyelin-manual", "labels.myelin=127",
            "labels.axon=255",
        ),
    ),
    "stardist3d": Dataset(
        source="stardist_sample/stardist/data/images",
        words=(
            "images.image='img{case}.tif'", "label='mask{case}.tif'", "exclude=[2d]",
            "channels.image=microscopy", "labels.nucleus='>0'", "patient_is_case=true",
            "spatial_dims=3", "spacing_mm=[0.001,0.001,0.001]",
        ),
        in_halves=True,
    ),
    "ms_lesions": Dataset(
        source="ms_lesions_mni/MNI",
        words=(
            "images.FLAIR='{case}/FLAIR_*.nii.gz'", "images.T1='{case}/T1_*.nii.gz'",
            "label='{case}/GOLD_*.nii.gz'", "channels.FLAIR=MR", "channels.T1=MR",
            "labels.lesion=1", "patient_is_case=true",
        ),
        in_halves=True,
    ),
}  # fmt: skip


def main() -> None:
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("data", type=Path)
    words.add_argument("output", type=Path)
    words.add_argument("--only", help="names of datasets; all of them where left out")
    chosen = words.parse_args()
    for name in chosen.only.split(",") if chosen.only else _DATASETS:
        print(make_manifest(name, chosen.data, chosen.output / name), flush=True)


def make_manifest(name: str, data: Path, folder: Path) -> Path:
    """Ingest a dataset into a folder; return the manifest to measure on."""
    dataset = _DATASETS[name]
    whole = folder / "whole" if dataset.in_halves else folder
    named = () if any(word.startswith("name=") for word in dataset.words) else (f"name={name}",)
    medseg(
        "ingest", f"source={data.resolve() / dataset.source}", f"output={whole}", *dataset.words,
        *named,
    )  # fmt: skip
    path = whole / "manifest.json"
    return halve(path, folder) if dataset.in_halves else path


if __name__ == "__main__":
    main()
