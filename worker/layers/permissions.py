"""Modes as chmod(1) writes them: `755`, `u+rwX,go-w`, `g=u`. Parsed once, applied to each file.

The meaning is BSD's setmode(3) with a umask of zero, which is what BuildKit uses for `COPY --chmod`. Pure.
"""

from __future__ import annotations

import stat
from collections.abc import Callable

from buildengine.errors import UserError
from buildengine.values import dataclass

_WHO = {"u": stat.S_ISUID | 0o700, "g": stat.S_ISGID | 0o070, "o": 0o007, "a": 0o6777}
_PERMISSIONS = {"r": 0o444, "w": 0o222, "x": 0o111}
_SHIFT = {"u": 6, "g": 3, "o": 0}
_ALL = 0o6777  # every bit but the sticky one, which only `t` names

_Step = Callable[[int, int, bool], int]  # (mode so far, mode before, is a directory) -> mode


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeChange:
    """A change of permission bits."""

    text: str
    steps: tuple[_Step, ...]

    def apply(self, mode: int, *, directory: bool) -> int:
        """The permission bits of `mode` after the change."""
        before = now = mode & 0o7777
        for step in self.steps:
            now = step(now, before, directory)
        return now


def parse_mode(text: str) -> ModeChange:
    """Raises UserError when `text` is no mode."""
    if text.isdigit():
        if not text.isascii() or any(digit in "89" for digit in text) or int(text, 8) > 0o7777:
            raise _invalid(text)
        absolute = int(text, 8)
        return ModeChange(text=text, steps=(lambda now, before, directory: absolute,))
    steps: list[_Step] = []
    for clause in text.split(","):
        steps += _clause(text, clause)
    return ModeChange(text=text, steps=tuple(steps))


def _clause(text: str, clause: str) -> list[_Step]:
    """`[ugoa]*` and then one or more of `[+-=][rwxXstugo]*`."""
    end = next((i for i, char in enumerate(clause) if char in "+-="), -1)
    if end < 0 or any(char not in _WHO for char in clause[:end]):
        raise _invalid(text)
    who = 0
    for char in clause[:end]:
        who |= _WHO[char]
    steps: list[_Step] = []
    while end < len(clause):
        operator, start = clause[end], end + 1
        end = next((i for i in range(start, len(clause)) if clause[i] in "+-="), len(clause))
        steps += _operation(text, who, operator, clause[start:end])
    return steps


def _operation(text: str, who: int, operator: str, letters: str) -> list[_Step]:
    scope, bits, conditional = who or _ALL, 0, 0
    sources: list[int] = []
    only_others = bool(who) and not who & ~0o007
    for letter in letters:
        if letter in _PERMISSIONS:
            bits |= _PERMISSIONS[letter]
        elif letter == "X":
            conditional = 0o111
        elif letter in "st":
            if not only_others:
                bits |= 0o6000 if letter == "s" else 0o1000
                scope |= 0 if letter == "s" else 0o1000
        elif letter in _SHIFT:
            sources.append(_SHIFT[letter])
        else:
            raise _invalid(text)
    if operator == "-":
        return [_change(scope & (bits | conditional), 0, scope, sources, False)]
    # `u=g` copies permissions only, `u=` takes set-user-ID away too.
    cleared = 0 if operator == "+" else scope & 0o777 if sources and not bits else scope
    steps = [_change(cleared, scope & bits, scope, sources, True)]
    if conditional:
        steps.append(_set_if_executable(scope & conditional))
    return steps


def _change(cleared: int, added: int, scope: int, sources: list[int], adds: bool) -> _Step:
    """Clear, then set; `sources` are the classes whose permissions are copied into, or taken from, the scope."""

    def step(now: int, before: int, directory: bool) -> int:
        copied = 0
        for shift in sources:
            copied |= (now >> shift & 0o7) * 0o111 & scope
        return now & ~cleared | added | copied if adds else now & ~(cleared | copied)

    return step


def _set_if_executable(bits: int) -> _Step:
    return lambda now, before, directory: now | bits if directory or before & 0o111 else now


def _invalid(text: str) -> UserError:
    return UserError(f"invalid mode {text!r}", hint="octal like 755, or symbolic like u+rwX,go-w")
