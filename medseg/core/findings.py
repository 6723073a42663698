"""What an audit or a reader noticed: coded, graded, and with the way out."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from medseg.core.errors import MedsegError

Severity = Literal["note", "warning", "error"]
_ORDER: tuple[Severity, ...] = ("note", "warning", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing noticed about one object.

    Attributes:
        code: stable code, such as `NII-004`.
        severity: `note` (a recorded repair), `warning` (look at it), `error` (refused).
        subject: the case id or file the finding is about.
        message: what was found and what was expected.
        hint: what to do about it.
    """

    code: str
    severity: Severity
    subject: str
    message: str
    hint: str = ""

    def to_json(self) -> dict[str, str]:
        """Return plain strings, ready for a JSON report."""
        return asdict(self)


def finding_of(error: MedsegError, subject: str) -> Finding:
    """Turn a refusal into the finding an audit lists."""
    return Finding(
        code=error.code,
        severity="error",
        subject=subject,
        message=error.message,
        hint=error.hint,
    )


def worst(findings: Iterable[Finding]) -> Severity | None:
    """Return the gravest severity among the findings, None when there are none."""
    return max((f.severity for f in findings), key=_ORDER.index, default=None)
