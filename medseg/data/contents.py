"""What the files of a case hold, in bytes: digests by which changes and copies are noticed."""

from pathlib import Path

from medseg.data.manifest import Manifest
from medseg.runtime.files import digest_json, digest_of


def digest_of_case(manifest: Manifest) -> str:
    """Return the SHA-256 over the bytes of all files of a manifest's only case.

    Raises:
        ManifestError: MAN-003, MAN-007: a file is missing or leads out of the data root.
    """
    (case,) = manifest.cases
    labels = [digest_of_path(manifest.path_of(path)) for path in case.label_files]
    return digest_json({"images": image_digests(manifest), "labels": labels})


def image_digests(manifest: Manifest) -> dict[str, list[str]]:
    """Return, for every channel of the only case, its file's digest and its series.

    Raises:
        ManifestError: as in `digest_of_case`.
    """
    (case,) = manifest.cases
    return {
        name: [digest_of_path(manifest.path_of(path)), case.series_uids.get(name, "")]
        for name, path in case.images.items()
    }


def digest_of_path(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and bytes of all files of a folder."""
    if path.is_file():
        return digest_of(path)
    inside = sorted(entry for entry in path.rglob("*") if entry.is_file())
    return digest_json([[str(entry.relative_to(path)), digest_of(entry)] for entry in inside])
