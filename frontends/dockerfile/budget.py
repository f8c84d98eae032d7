"""What a whole Dockerfile may cost beyond its own length: a few lines can double a variable to any size.

One budget serves all stages and platforms of a build. The bounds are ours; each is far above what anybody writes. Pure.
"""

from __future__ import annotations

from collections.abc import Collection

from buildengine.errors import ParseError
from frontends.dockerfile.suggest import did_you_mean

_LARGEST_SUM = 64 << 20  # characters from the variables of all texts
_MOST_STEPS = 1 << 30  # of patterns, a character of one on a character of a value: about two seconds
_MOST_PORTS = 1 << 21  # that EXPOSE lists: about two seconds
_MOST_NAMES = 50_000  # compared for suggestions: about half a second

ITSELF = "does a variable hold itself, again and again?"


class Budget:
    """How much of each is left."""

    __slots__ = ("left", "names", "ports", "steps")

    def __init__(self) -> None:
        self.left = _LARGEST_SUM
        self.steps = _MOST_STEPS
        self.ports = _MOST_PORTS
        self.names = _MOST_NAMES

    def spend(self, size: int) -> None:
        """So many characters come from variables."""
        self.left -= size
        if self.left < 0:
            raise ParseError(
                f"variables make all instructions together longer than {_LARGEST_SUM >> 20} MiB",
                hint=f"{ITSELF} Every RUN and every stage carries all variables that are set above it.",
            )

    def match(self, pattern: str, value: str) -> None:
        """A fixed piece of a pattern may have to be tried at each place of the value."""
        self.steps -= len(pattern) * len(value)
        if self.steps < 0:
            raise ParseError(
                "the patterns of all substitutions together take too long", hint="use shorter patterns or values"
            )

    def expose(self, added: int, before: int) -> None:
        """`added` ports are listed, beside `before` that were: those are copied, which costs a 64th."""
        self.ports -= added + before // 64
        if self.ports < 0:
            raise ParseError("all EXPOSE instructions together list too many ports", hint="list each port once")

    def suggest(self, name: str, names: Collection[str], *, prefix: str = "") -> str:
        """` (did you mean x?)`, or nothing; nothing at all when the file has asked too often: it is no duty."""
        if self.names > 0:
            self.names -= len(names)
        return did_you_mean(name, names, prefix=prefix) if self.names > 0 else ""
