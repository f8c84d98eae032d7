"""Sizes, durations and times as people write and read them: `64MB`, `1h30m`; `2.746GB`, `4 hours`, RFC 3339.

Facts: docker/go-units size.go and duration.go, Go's time.ParseDuration. Knows no configuration and no flags.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from buildengine.errors import UserError

# RAMInBytes: units are binary even when written without the i, in any case, with or without the b.
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+) ?(?:([kmgtp]?)(?:i?b)?)", re.IGNORECASE)
_FACTORS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_MAX_SIZE = (1 << 63) - 1

_PART = r"(\d++(?:\.\d*+)?|\.\d++)(ns|us|µs|ms|s|m|h|d)"
_DURATION = re.compile(_PART)
_DURATIONS = re.compile(f"(?:{_PART})+")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_YEAR_10000 = 253402300800


def parse_size(text: str) -> int:
    """Bytes. As docker does, `10GB`, `10gib` and `10g` are all 10 * 2**30. Raises UserError."""
    match = _SIZE.fullmatch(text.strip())
    number = float(match[1]) * _FACTORS[match[2].lower()] if match else -1.0
    if not 0 <= number <= _MAX_SIZE:
        raise UserError(
            f"invalid size {text!r}", hint="a size is a number with an optional unit, e.g. 1048576, 64MB or 2GiB"
        )
    return int(number)


def parse_duration(text: str) -> float:
    """Seconds, from a plain number of seconds or a sum of units: `90`, `48h`, `1h30m`, `7d`. Raises UserError."""
    text = text.strip()
    if re.fullmatch(r"\d{1,15}", text):
        return float(text)
    if not _DURATIONS.fullmatch(text):
        raise UserError(f"invalid duration {text!r}", hint="a duration is e.g. 90s, 1h30m, 48h or 7d")
    return float(sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text)))


def parse_epoch(name: str, text: str) -> int:
    """What `name` gives as a time, in seconds since 1970, before the year 10000: no notation of time here reaches
    further. Raises UserError.
    """
    if not re.fullmatch("[+]?[0-9]{1,18}", text):
        raise UserError(f"invalid {name}={text}: not a number of seconds", hint="seconds since 1970")
    if int(text) >= _YEAR_10000:
        raise UserError(f"invalid {name}={text}: this is no time", hint="seconds since 1970")
    return int(text)


def show_size(size: float, digits: int = 4) -> str:
    """`size` in decimal units with at most `digits` significant digits: 2.746GB."""
    index = 0
    while float(f"{size:.{digits}g}") >= 1000 and index < len(_UNITS) - 1:
        size /= 1000
        index += 1
    return f"{size:.{digits}g}{_UNITS[index]}"


def show_binary_size(size: float) -> str:
    """`512MiB`: powers of 1024, as docker's BytesSize."""
    units = iter(("B", "KiB", "MiB", "GiB", "TiB", "PiB"))
    unit = next(units)
    while size >= 1024 and (larger := next(units, None)) is not None:
        size, unit = size / 1024, larger
    return f"{size:.4g}{unit}"


def show_progress(size: int) -> str:
    """`size` with two decimals, whole bytes below 1 kB: what moves should not change its width at every step."""
    if size < 1000:
        return f"{size}B"
    index, value = 0, float(size)
    while value >= 1000 and index < len(_UNITS) - 1:
        value /= 1000
        index += 1
    return f"{value:.2f}{_UNITS[index]}"


def show_duration(seconds: float) -> str:
    """About how long: `Less than a second`, `About a minute`, `4 hours`, `3 weeks`."""
    whole = int(seconds)
    minutes, hours = whole // 60, int(seconds / 3600 + 0.5)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    days = hours // 24
    for limit, unit, length in ((14, "days", 1), (60, "weeks", 7), (730, "months", 30)):
        if days < limit:
            return f"{days // length} {unit}"
    return f"{whole // (365 * 86400)} years"


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC of a time in seconds since the epoch, as Go writes it: no trailing zeros in the fraction."""
    moment = datetime.fromtimestamp(seconds, UTC)
    fraction = f".{moment.microsecond:06}".rstrip("0") if moment.microsecond else ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"
