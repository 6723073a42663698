"""PET in SUV and PET in activity: a factor of thousands apart, so no network sees both."""

from collections.abc import Mapping

from medseg.core.errors import ManifestError
from medseg.data.case import SUV
from medseg.data.manifest import Manifest


def require_same_units(manifest: Manifest, known: Mapping[str, str], *, by: str) -> None:
    """Refuse a dataset in SUV where activity is known, and the reverse.

    Args:
        manifest: the dataset.
        known: modality of each channel; channels that are not in it are not compared.
        by: what knows it, as the middle of a sentence, such as "the network was trained on".

    Raises:
        ManifestError: SCN-010.
    """
    for channel in manifest.channels:
        expected = known.get(channel.name, channel.modality)
        if (expected == SUV) != (channel.modality == SUV):
            raise ManifestError(
                f"{manifest.name}: channel {channel.name!r} is of modality {channel.modality}, but "
                f"{by} {expected}",
                code="SCN-010",
                hint=f"ingest it with channels.{channel.name}={expected}; units are not mixed",
            )
