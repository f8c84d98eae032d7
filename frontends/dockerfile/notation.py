"""Small notations that Docker's tools share, read as Go's libraries read them: CSV, booleans, durations, limits.

Each raises ValueError with what is wrong; the caller knows where it stood. Pure.
"""

from __future__ import annotations

import ipaddress
import re

from llb.ops import HostIP, Ulimit

_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_DURATION = re.compile(r"([0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(ns|us|µs|μs|ms|s|m|h)")
_NUMBER_AND_UNIT = re.compile(r"(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)([^0-9.]*+)")
_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_ULIMITS = frozenset([
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
    "rttime", "sigpending", "stack",
])  # fmt: skip


def boolean(text: str) -> bool:
    """What strconv.ParseBool takes."""
    if text not in _TRUE | _FALSE:
        raise ValueError(f"not a boolean: {text!r}")
    return text in _TRUE


def csv_fields(text: str) -> tuple[str, ...]:
    """The comma-separated fields of one line; a field may stand in double quotes, `""` inside is one of them."""
    if not text:
        raise ValueError("it is empty")
    fields: list[str] = []
    at = 0
    while True:
        if text.startswith('"', at):
            field, at = _quoted_field(text, at + 1)
        else:
            end = text.find(",", at)
            field, at = (text[at:], len(text)) if end < 0 else (text[at:end], end)
            if '"' in field:
                raise ValueError(f"a quote stands inside the unquoted field {field!r}")
        fields.append(field)
        if at >= len(text):
            return tuple(fields)
        if text[at] != ",":
            raise ValueError("something stands behind a closing quote")
        at += 1


def _quoted_field(text: str, at: int) -> tuple[str, int]:
    parts: list[str] = []
    while True:
        end = text.find('"', at)
        if end < 0:
            raise ValueError("a quoted field is not closed")
        parts.append(text[at:end])
        at = end + 1
        if not text.startswith('"', at):
            return '"'.join(parts), at
        at += 1


def duration(text: str) -> int:
    """Nanoseconds: `1m30s`, `1.5h`, `0`."""
    if text in ("0", "+0", "-0"):
        return 0
    body = text.removeprefix("-") if text.startswith("-") else text.removeprefix("+")
    total, at = 0, 0
    while match := _DURATION.match(body, at):
        at = match.end()
        whole, _, fraction = match[1].partition(".")
        unit = _NANOSECONDS[match[2]]
        total += int(whole[:20] or 0) * unit + (
            int(fraction[:18]) * unit // 10 ** len(fraction[:18]) if fraction else 0
        )
    if not body or at != len(body) or total >= 1 << 63:
        raise ValueError(_bad_duration(text, body))
    return -total if text.startswith("-") else total


def _bad_duration(text: str, body: str) -> str:
    """Go's words (time.ParseDuration)."""
    at = 0
    while match := _NUMBER_AND_UNIT.match(body, at):
        at = match.end()
        if not match[1]:
            return f'time: missing unit in duration "{text}"'
        if match[1] not in _NANOSECONDS:
            return f'time: unknown unit "{match[1]}" in duration "{text}"'
    return f'time: invalid duration "{text}"'


def show_duration(nanoseconds: int) -> str:
    """As Go prints a duration: `1m30s`, `1.5s`, `0s`."""
    if nanoseconds == 0:
        return "0s"
    if nanoseconds < 10**9:
        unit, digits = next(u for u in (("ns", 0), ("µs", 3), ("ms", 6)) if nanoseconds < 10 ** (u[1] + 3))
        return _decimal(nanoseconds, digits) + unit
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    text = _decimal(rest, 9) + "s"
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _decimal(value: int, digits: int) -> str:
    whole, fraction = divmod(value, 10**digits)
    return f"{whole}.{fraction:0{digits}d}".rstrip("0") if fraction else str(whole)


def ulimit(text: str) -> Ulimit:
    """`nofile=1024:2048`; one number is both limits."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in _ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    numbers = value.split(":")
    if len(numbers) > 2 or not all(re.fullmatch(r"[+-]?[0-9]{1,18}", n) for n in numbers):
        raise ValueError(f"invalid ulimit value: {value}; it is soft or soft:hard")
    soft, hard = int(numbers[0]), int(numbers[-1])
    if hard != -1 and (soft == -1 or soft > hard):
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return Ulimit(name=name, soft=soft, hard=hard)


def host_ip(text: str) -> HostIP:
    """`name=address`."""
    host, equals, address = text.lower().partition("=")
    if not equals:
        raise ValueError(f"invalid key-value pair {text}")
    try:
        return HostIP(host=host, ip=str(ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))))
    except ValueError:
        raise ValueError(f"failed to parse IP {address}") from None
