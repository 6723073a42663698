"""DICOM dates and times moved by a number of seconds, their precision and fractions kept."""

import re
from datetime import datetime, timedelta

_DATE = re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)")
_TIME = re.compile(r"(\d\d):?(\d\d)?:?(\d\d)?(\.\d{1,6})?")
_DATETIME = re.compile(r"(\d{8})(\d{2,6})?(\.\d{1,6})?([+-]\d{4})?")
_DAY_S = 86_400
# A time of day without a date is moved on any day; it wraps around at midnight.
_SOME_DAY = "20010101"


def moved(day: str, clock: str, shift_s: int) -> tuple[str, str]:
    """Move a date and the time of day that belongs to it (value representations DA and TM).

    Args:
        day: `YYYYMMDD`, or empty where only a time is known.
        clock: `HHMMSS.FFFFFF`, with or without its last parts, or empty.
        shift_s: seconds, negative into the past.

    Returns:
        The moved date and time; "" for one that was empty or makes no sense. A date without a time
        is moved by whole days.
    """
    digits, fraction = _clock_digits(clock)
    match = _DATE.fullmatch(day)
    if match is None:
        return "", _timed(_moved(_SOME_DAY + digits, shift_s), fraction) if digits else ""
    date = "".join(match.groups())
    if not digits:
        return _moved(f"{date}000000", shift_s // _DAY_S * _DAY_S)[:8], ""
    found = _moved(date + digits, shift_s)
    return found[:8], _timed(found, fraction)


def moved_datetime(stamp: str, shift_s: int) -> str:
    """Move a value of representation DT; "" where it is less than a date, or makes no sense."""
    match = _DATETIME.fullmatch(stamp)
    if match is None:
        return ""
    day, clock, fraction, zone = (part or "" for part in match.groups())
    date, time = moved(day, clock + fraction if clock else "", shift_s)
    return date + time + zone if date and bool(time) == bool(clock) else ""


def _clock_digits(clock: str) -> tuple[str, str]:
    """Return a time of day as six digits, and its fraction with the point."""
    match = _TIME.fullmatch(clock)
    if match is None:
        return "", ""
    hours, minutes, seconds, fraction = match.groups()
    return f"{hours}{minutes or '00'}{seconds or '00'}", fraction or ""


def _timed(stamp: str, fraction: str) -> str:
    return stamp[8:] + fraction if stamp else ""


def _moved(stamp: str, shift_s: int) -> str:
    try:
        found = datetime.strptime(stamp, "%Y%m%d%H%M%S") + timedelta(seconds=shift_s)
    except (ValueError, OverflowError):
        return ""
    return f"{found.year:04d}{found:%m%d%H%M%S}"
