"""A step's output as lines that are safe to show: bytes in, text out. Knows no step and no terminal.

Whatever a step prints reaches the user's terminal, so nothing in it may act there: escape sequences and
control characters are dropped, bytes that are no UTF-8 are spelled out (`\\xff`). A carriage return starts the
line again, as a progress bar means it: of `10%\\r20%\\r30%` only `30%` is kept.
"""

from __future__ import annotations

import re

from buildengine.values import dataclass

# ECMA-48: CSI; OSC, DCS, SOS, PM, APC up to their terminator; any other ESC sequence.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]?|[\]PX^_].*?(?:\x07|\x1b\\|$)|[ -/]*[0-~]?)")
# C0 but the tab, DEL, C1; what makes a line end, or reads it in another order than it is written (CVE-2021-42574)
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_GAP = re.compile(r"\s+")
_LONGEST = 64 << 10  # a line is broken here: nobody reads further, and memory is not a step's to fill


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of output and when its first byte came."""

    time: float
    text: str


def safe(text: str) -> str:
    """`text` as one line without anything that acts on a terminal."""
    if text.isprintable():
        return text
    one_line = _GAP.sub(_narrowed, text).replace("\t", " ")
    return _CONTROLS.sub("", _ESCAPES.sub("", one_line))


def _narrowed(gap: re.Match[str]) -> str:
    return " " if "\n" in gap[0] or "\r" in gap[0] else gap[0]


class LineBuffer:
    """Puts one stream of a step together, line by line."""

    def __init__(self) -> None:
        self._pending = b""
        self._since = 0.0

    def feed(self, data: bytes, time: float) -> list[Line]:
        """The lines that `data` completes."""
        lines = []
        *complete, rest = data.split(b"\n")
        for part in complete:
            lines.append(Line(time=self._since if self._pending else time, text=_visible(self._pending + part)))
            self._pending = b""
        if rest and not self._pending:
            self._since = time
        self._pending += rest
        if len(self._pending) > _LONGEST:
            self._pending = _last_pass(self._pending)
        if len(self._pending) > _LONGEST:
            lines += self.flush()
        return lines

    def flush(self) -> list[Line]:
        """The unfinished line, as at the end of the output."""
        text = self.pending
        self._pending = b""
        return [Line(time=self._since, text=text)] if text else []

    @property
    def pending(self) -> str:
        """The unfinished line, as it looks now."""
        return _visible(self._pending) if self._pending else ""


def _last_pass(data: bytes) -> bytes:
    """What stands on the line after the last carriage return that something follows."""
    if b"\r" not in data:
        return data
    return data.rstrip(b"\r").rpartition(b"\r")[2]


def _visible(data: bytes) -> str:
    text = _last_pass(data).decode(errors="backslashreplace")
    if text.isprintable():
        return text
    return _CONTROLS.sub("", _ESCAPES.sub("", text))
