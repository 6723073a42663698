"""Series: the volumes that a scan of headers holds, told apart, each with a verdict and a reason.

Files are grouped by SeriesInstanceUID and kind of object, then by scout or not, stack and
orientation, then, where positions repeat, by what tells the repetitions apart (time, echo,
b-value, ...). What a group lacks to be a volume is recorded, not repaired.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from medseg.core.errors import GeometryError, MedsegError, ReadError
from medseg.core.findings import Finding
from medseg.core.geometry import Geometry
from medseg.io.dicom.headers.attributes import number, text, unspoken
from medseg.io.dicom.headers.scan import Header, Scan
from medseg.io.dicom.headers.sources import DicomFile
from medseg.io.dicom.series.enhanced import enhanced_frames, is_enhanced
from medseg.io.dicom.series.frames import Frame, single_frame
from medseg.io.dicom.series.mosaic import is_mosaic, mosaic_frames
from medseg.io.dicom.series.parts import tell_apart
from medseg.io.dicom.series.stack import build_stack
from medseg.io.dicom.series.values import same_pixels

Verdict = Literal["volume", "slice", "localizer", "damaged", "other"]
# Objects that live beside images, by modality: what they are, and what reads them.
_NO_IMAGES = {
    "SEG": "a segmentation: give it as a mask, together with its scan",
    "RTSTRUCT": "a set of contours: give it as a mask, together with its scan",
    "RTDOSE": "a dose distribution",
    "RTPLAN": "a treatment plan",
    "PR": "a presentation state, which only says how to show images",
    "SR": "a structured report",
    "KO": "a selection of key images",
    "REG": "a registration",
    "DOC": "an encapsulated document",
    "PLAN": "a plan",
}
# Refusals that mean "this was never a volume", not "this volume is damaged".
_NO_VOLUME = frozenset({"DCM-018", "DCM-019", "DCM-026", "DCM-034"})
_SHORT_UID = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Series:
    """One volume, or what stands in its place.

    Attributes:
        uid: SeriesInstanceUID.
        num_digits: how many of the UID's last digits tell it from the other series of its scan.
        part: which volume of the series, such as `b=1000`; empty when it is the only one.
        modality: `CT`, `MR`, `PT`, ...
        files: what belongs to it, readable or not.
        verdict: `volume` (two slices or more), `slice` (one), `localizer`, `damaged` (an image
            series that cannot be placed or is incomplete), `other` (never a volume).
        frames: in the order of k; empty unless it can be read.
        geometry: its grid; None unless it can be read.
        refusal: why it cannot be read.
        findings: what was noticed while it was put together.
        description: SeriesDescription; free text, so never logged: show it only when asked.
        patient_id: PatientID, to group cases by patient; never logged.
        study_uid: StudyInstanceUID; never logged.
        frame_of_reference: FrameOfReferenceUID; empty when the files give none.
    """

    uid: str = field(repr=False)
    num_digits: int = _SHORT_UID
    part: str
    modality: str
    files: tuple[DicomFile, ...] = field(repr=False)
    verdict: Verdict
    frames: tuple[Frame, ...] = field(default=(), repr=False)
    geometry: Geometry | None = None
    refusal: MedsegError | None = None
    findings: tuple[Finding, ...] = ()
    description: str = field(default="", repr=False)
    patient_id: str = field(default="", repr=False)
    study_uid: str = field(default="", repr=False)
    frame_of_reference: str = field(default="", repr=False)

    @property
    def num_slices(self) -> int:
        """Slices of the volume; 0 when it cannot be read."""
        return len(self.frames)

    @property
    def copies(self) -> tuple[DicomFile, ...]:
        """Files that say again what others say; none where it cannot be read."""
        read = {frame.file for frame in self.frames}
        return tuple(file for file in self.files if file not in read) if read else ()

    @property
    def place(self) -> Path:
        """The file, archive or folder that holds its slices, whatever else lies there."""
        files = [frame.file for frame in self.frames] or self.files
        return Path(os.path.commonpath({file.path for file in files}))

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        """Spacing along i, j, k; None when it cannot be read."""
        return None if self.geometry is None else self.geometry.spacing_mm

    @property
    def reason(self) -> str:
        """Why the verdict is what it is; empty for a volume."""
        return "" if self.refusal is None else str(self.refusal)

    @property
    def selector(self) -> str:
        """What to give as `series_uid` to choose it: the UID's last digits, and the part."""
        digits = self.uid[-self.num_digits :] or "none"
        return f"{digits}:{self.part}".rstrip(":")


def short_uid(uid: str) -> str:
    """Return the last digits of a UID, enough to tell the series of a folder apart."""
    return uid[-_SHORT_UID:] or "none"


def group_series(scan: Scan) -> tuple[Series, ...]:
    """Sort the headers of a scan into series, each with its verdict; volumes first."""
    groups: dict[tuple[str, str], list[Header]] = {}
    with unspoken():
        for header in scan.headers:
            key = text(header.dataset, "SeriesInstanceUID"), text(header.dataset, "SOPClassUID")
            groups.setdefault(key, []).append(header)
        found = [series for headers in groups.values() for series in _series_of(headers)]
    order: tuple[Verdict, ...] = ("volume", "slice", "damaged", "localizer", "other")
    found.sort(key=lambda series: order.index(series.verdict))
    num_digits = _digits_to_tell({series.uid for series in found})
    return tuple(replace(series, num_digits=num_digits) for series in found)


def _digits_to_tell(uids: set[str]) -> int:
    """Return how many last digits it takes for all UIDs to differ."""
    longest = max(map(len, uids))
    return next(
        (n for n in range(_SHORT_UID, longest) if len({uid[-n:] for uid in uids}) == len(uids)),
        max(longest, _SHORT_UID),
    )


def _series_of(headers: Sequence[Header]) -> list[Series]:
    """Turn the files of one SeriesInstanceUID and one kind of object into series."""
    try:
        _require_images(headers)
        frames = [frame for header in headers for frame in _frames_of(header)]
        _require_one_frame_of_reference(headers)
        _require_one_patient(headers)
        parts = tell_apart(frames)
    except MedsegError as refusal:
        return [_refused(headers, refusal)]
    return [_series_of_part(headers, name, part) for name, part in parts]


def _series_of_part(headers: Sequence[Header], part: str, frames: Sequence[Frame]) -> Series:
    first = headers[0].dataset
    uid = text(first, "SeriesInstanceUID")
    files = tuple(dict.fromkeys(frame.file for frame in frames))
    name = f"series {short_uid(uid)}:{part}".rstrip(":")
    try:
        _require_rescale_in_all([header for header in headers if header.file in files])
        stack = build_stack(frames, name=name, same_pixels=same_pixels)
    except MedsegError as refusal:
        return _refused(headers, refusal, part=part, files=files)
    verdict: Verdict = "volume" if len(stack.frames) > 1 else "slice"
    return Series(
        uid=uid,
        part=part,
        modality=text(first, "Modality"),
        files=files,
        verdict="localizer" if frames[0].localizer else verdict,
        frames=stack.frames,
        geometry=stack.geometry,
        findings=stack.findings,
        description=text(first, "SeriesDescription"),
        patient_id=text(first, "PatientID"),
        study_uid=text(first, "StudyInstanceUID"),
        frame_of_reference=text(first, "FrameOfReferenceUID"),
    )


def _refused(
    headers: Sequence[Header],
    refusal: MedsegError,
    *,
    part: str = "",
    files: tuple[DicomFile, ...] = (),
) -> Series:
    first = headers[0].dataset
    return Series(
        uid=text(first, "SeriesInstanceUID"),
        part=part,
        modality=text(first, "Modality"),
        files=files or tuple(header.file for header in headers),
        verdict="other" if refusal.code in _NO_VOLUME else "damaged",
        refusal=refusal,
        description=text(first, "SeriesDescription"),
        patient_id=text(first, "PatientID"),
        study_uid=text(first, "StudyInstanceUID"),
    )


def _require_images(headers: Sequence[Header]) -> None:
    """Refuse objects that are no images."""
    first, name = headers[0].dataset, headers[0].file.name
    kind = _NO_IMAGES.get(text(first, "Modality"))
    if kind is not None or "Rows" not in first:
        raise ReadError(
            f"{name}: is {kind or 'a DICOM object without pixels'}; expected images",
            code="DCM-034",
            hint="give the folder of the image series",
        )


def _frames_of(header: Header) -> list[Frame]:
    if is_enhanced(header):
        return list(enhanced_frames(header))
    if is_mosaic(header):
        return list(mosaic_frames(header))
    if (text(header.dataset, "NumberOfFrames") or "1") != "1":
        raise GeometryError(
            f"{header.file.name}: {text(header.dataset, 'NumberOfFrames')} frames without "
            "functional groups, so only the place of the first is known",
            code="DCM-018",
            hint="export the series as enhanced multi-frame or as single frames",
        )
    return [single_frame(header)]


def _require_one_frame_of_reference(headers: Sequence[Header]) -> None:
    found = Counter(text(header.dataset, "FrameOfReferenceUID") for header in headers)
    if len(found) > 1:
        odd = found.most_common()[-1][0]
        files = [h.file.name for h in headers if text(h.dataset, "FrameOfReferenceUID") == odd]
        raise GeometryError(
            f"{files[0]}: lies in another frame of reference than {len(headers) - len(files)} "
            f"other files of its series ({len(found)} frames of reference, expected one)",
            code="DCM-033",
            hint="positions of two frames of reference cannot be compared; split the series",
        )


def _require_one_patient(headers: Sequence[Header]) -> None:
    """Refuse files of several patients that somebody gave one SeriesInstanceUID.

    The study is not asked for: some tools that remove names give every file one of its own.
    """
    found = Counter(text(header.dataset, "PatientID") for header in headers)
    if len(found) > 1:
        odd = found.most_common()[-1][0]
        name = next(h.file.name for h in headers if text(h.dataset, "PatientID") == odd)
        raise ReadError(
            f"{name}: has another PatientID than other files of its series ({len(found)} in "
            f"{len(headers)} files, expected one)",
            code="DCM-003",
            hint="give each patient a folder of its own, or correct the ids",
        )


def _require_rescale_in_all(headers: Sequence[Header]) -> None:
    """Refuse a slice without the slope or intercept by which the others get their unit."""
    for keyword, idle in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        found = [number(h.dataset, keyword, name=h.file.name) for h in headers]
        if None in found and any(value not in (None, idle) for value in found):
            raise ReadError(
                f"{headers[found.index(None)].file.name}: has no {keyword}, though other files of "
                "its series have one, so its values are in another unit",
                code="DCM-008",
                hint="export the series again",
            )
