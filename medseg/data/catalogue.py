"""The public datasets that `medseg fetch` knows: one checked YAML file each."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import resources
from importlib.resources.abc import Traversable

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medseg.core.errors import DownloadError, ManifestError


class Folds(BaseModel):
    """Folds that others published results on, by the rule that makes them.

    Attributes:
        number: how many folds.
        seed: of NumPy's legacy generator.
        source: where the same folds are listed case by case.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    number: int = Field(ge=2)
    seed: int = Field(ge=0)
    source: str

    def of(self, case_ids: Iterable[str]) -> dict[str, int]:
        """Return the fold each case validates, given the ids of every training case.

        The rule of nnU-Net and of MONAI's DynUNet pipeline, which is scikit-learn's shuffled KFold:
        sort the ids, shuffle, cut into runs of which the first ones are longer by one.
        """
        ids = sorted(case_ids)
        order = np.arange(len(ids))
        np.random.RandomState(self.seed).shuffle(order)
        runs = np.array_split(order, self.number)
        return dict(sorted((ids[i], fold) for fold, run in enumerate(runs) for i in run))


class Dataset(BaseModel):
    """What must be known of a dataset to fetch it, cite it and train on it.

    Attributes:
        name: also the name of its folder and of its file in the catalogue.
        title: what is segmented, in a few words.
        url: of one archive (tar, tar.gz or zip).
        checksum: `md5:HEX` or `sha256:HEX` of the archive.
        homepage: where its authors describe it.
        licence: SPDX identifier.
        citation: what its authors ask to be cited.
        source: who acquired the scans.
        channels: name of each channel, in the order of the files, and its modality.
        classes: name of each class and the value masks store for it.
        num_train, num_test: cases with and without a mask.
        folds: the published ones, where there are any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    # A folder gets this name: nothing that could lead out of `output`.
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    title: str
    url: str
    checksum: str = Field(pattern=r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$")
    homepage: str
    licence: str
    citation: str
    source: str
    channels: dict[str, str] = Field(min_length=1)
    classes: dict[str, int] = Field(min_length=1)
    num_train: int = Field(ge=1)
    num_test: int = Field(ge=0)
    folds: Folds | None = None

    @property
    def modality(self) -> str:
        """The modalities of its channels, such as `MR` or `CT, PT`."""
        return ", ".join(dict.fromkeys(self.channels.values()))


def read_catalogue(folder: Traversable | None = None) -> dict[str, Dataset]:
    """Read every dataset of a catalogue, sorted by name.

    Args:
        folder: a folder of YAML files; None: the ones that come with medseg.

    Raises:
        ManifestError: FET-010, a file that is not a dataset, or is not called after it.
    """
    folder = resources.files("medseg.data_manifests") if folder is None else folder
    try:
        files = sorted(
            (file for file in folder.iterdir() if file.name.endswith(".yaml")),
            key=lambda file: file.name,
        )
    except OSError as fault:
        raise ManifestError(
            f"{folder}: cannot be read as a catalogue: {fault.strerror}", code="FET-010"
        ) from fault
    return {dataset.name: dataset for dataset in map(_read_dataset, files)}


def find_dataset(name: str, catalogue: Mapping[str, Dataset]) -> Dataset:
    """Return the dataset of that name, whatever its upper and lower case.

    Raises:
        DownloadError: FET-001, no such dataset; the hint names the nearest.
    """
    by_lower = {known.lower(): dataset for known, dataset in catalogue.items()}
    if name.lower() in by_lower:
        return by_lower[name.lower()]
    # "hippocampus" is nearer to Task04_Hippocampus than a comparison of whole names would say.
    words = {word: known for known in catalogue for word in (known, known.partition("_")[2])}
    lower = {word.lower(): known for word, known in words.items() if word}
    near = get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    meant = f"; the nearest is {lower[near[0]]}" if near else ""
    raise DownloadError(
        f"{name}: no such dataset{meant}",
        code="FET-001",
        hint="medseg fetch without a name lists them all",
    )


def _read_dataset(file: Traversable) -> Dataset:
    try:
        dataset = Dataset.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as fault:
        raise ManifestError(f"{file}: is not YAML: {fault}", code="FET-010") from fault
    except ValidationError as fault:
        first = fault.errors()[0]
        where = ".".join(str(key) for key in first["loc"]) or "the file"
        raise ManifestError(
            f"{file}: {where}: {first['msg']}, found {first['input']!r}",
            code="FET-010",
            hint="data_manifests/README.md shows what a dataset's file holds",
        ) from fault
    if file.name != f"{dataset.name}.yaml":
        raise ManifestError(
            f"{file}: holds the dataset {dataset.name}; expected {dataset.name}.yaml",
            code="FET-010",
        )
    return dataset
