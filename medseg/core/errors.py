"""What medseg says when it refuses: one line that names the object, the fault and the way out."""

from typing import ClassVar

# What a command ends with (0 when all went well); documented for users in docs/outputs.md.
EXIT_REFUSED = 2
EXIT_SOME_FAILED = 3
EXIT_INTERRUPTED = 130


class MedsegError(Exception):
    """A refusal a user can act on; the command line prints it as one line, without a traceback.

    Args:
        message: what was found and what was expected, beginning with the object (file, key, case).
        code: stable code such as `NII-004`, by which `medseg check` and the documentation name it;
            "" for that of the kind.
        hint: what to do about it.

    Attributes:
        kind_code: of refusals of this kind that have no code of their own.
    """

    kind_code: ClassVar[str] = "MED-000"

    def __init__(self, message: str, *, code: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.kind_code
        self.hint = hint

    def __str__(self) -> str:
        tail = f"; {self.hint}" if self.hint else ""
        return " ".join(f"{self.code} {self.message}{tail}".split())

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling between worker processes.
        return _rebuild, (type(self), self.message, self.code, self.hint)


def _rebuild(kind: type[MedsegError], message: str, code: str, hint: str) -> MedsegError:
    return kind(message, code=code, hint=hint)


class ReadError(MedsegError):
    """A file that cannot be read as what it claims to be."""

    kind_code = "FIL-000"


class WriteError(MedsegError):
    """A file that could not be written whole; what stood there before still stands."""

    kind_code = "OUT-000"


class GeometryError(MedsegError):
    """Voxels that cannot be placed in space, or two grids that do not match."""

    kind_code = "GEO-000"


class LabelError(MedsegError):
    """Label values that the label set does not declare, or a label set that contradicts itself."""

    kind_code = "LBL-000"


class ManifestError(MedsegError):
    """A manifest, or a split of it, that cannot be trusted."""

    kind_code = "MAN-000"


class PlanError(MedsegError):
    """A plan that contradicts itself or its data."""

    kind_code = "PLN-000"


class ConfigError(MedsegError):
    """A setting that names nothing, or something a config may not name."""

    kind_code = "CFG-000"


class CheckpointError(MedsegError):
    """A checkpoint that is damaged, foreign, or made for something else."""

    kind_code = "CKP-000"


class TrainingError(MedsegError):
    """A training that cannot go on."""

    kind_code = "TRN-000"


class DownloadError(MedsegError):
    """A download that is incomplete, altered or unsafe to unpack."""

    kind_code = "FET-000"
