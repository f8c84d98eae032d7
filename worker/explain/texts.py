"""Texts of which one has become the other, short enough to be read: what differs, with some words around it."""

from __future__ import annotations

import re
import time

_WIDE = 100  # characters of a text that is shown whole
_AROUND = 24  # characters before and after what differs


def excerpts(old: str, new: str) -> tuple[str, str]:
    """Both, on one line each, cut to where they differ."""
    old, new = (re.sub(r"\s*\n\s*", " ↵ ", text.strip()) for text in (old, new))
    if max(len(old), len(new)) <= _WIDE:
        return old, new
    start = _word_start(new, _common(old, new))
    end = _common(old[start:][::-1], new[start:][::-1])
    return _window(old, start, len(old) - end), _window(new, start, len(new) - end)


def short(text: str, longest: int = _WIDE) -> str:
    text = re.sub(r"\s*\n\s*", " ↵ ", text.strip())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def readable(text: str) -> str:
    """`text` without what is no UTF-8 in names of files: spelled out, as it can be sent and printed."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def moment(seconds: float) -> str:
    """As people here write it: the time of this host."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _common(one: str, other: str) -> int:
    """How many characters both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((position for position, (a, b) in pairs if a != b), min(len(one), len(other)))


def _word_start(text: str, position: int) -> int:
    return max(text.rfind(" ", 0, position) + 1, position - _AROUND, 0)


def _window(text: str, start: int, end: int) -> str:
    first, last = max(0, start - _AROUND), min(len(text), max(end, start) + _AROUND)
    if last - first > 2 * _WIDE:
        middle = text[first : first + _WIDE] + " … " + text[last - _WIDE : last]
    else:
        middle = text[first:last]
    return ("… " if first else "") + middle + (" …" if last < len(text) else "")
