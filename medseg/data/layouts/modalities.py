"""What DICOM calls a modality, from what people call their channels."""

import re

# Spelling (whole name, any case) -> Defined Term of DICOM PS3.3 C.7.3.1.1.1, or our own two words
# for images of microscopes and cameras, which differ in how they are normalised.
_SPELLINGS = (
    (r"ct|cbct", "CT"),
    (r"mr|mri|mr[_-].*|t1.*|t2.*|flair|adc|dwi|pd|pdw|swi|bold|tof", "MR"),
    (r"pt|pet|suv|fdg", "PT"),
    (r"us|ultrasound", "US"),
    (r"cr|dx|xr|xray|x-ray", "DX"),
    (r"rgb|colou?r", "RGB"),
    (r"microscopy|sem|tem|bf|df|fluo", "microscopy"),
)


def modality_of(name: str) -> str:
    """Return the modality that a channel's name says; "" when it says none."""
    for spelling, modality in _SPELLINGS:
        if re.fullmatch(spelling, name, re.IGNORECASE):
            return modality
    return ""
