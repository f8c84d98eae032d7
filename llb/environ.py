"""The environment that a state carries: immutable, and cheap to add to, since build files add variable by variable.

A plain dict would be copied for every variable: 10,000 lines of ENV took eight seconds. Here an environment is a length
of a log that it shares with those that grow from it; only what grows twice from one place copies.

>>> one = Environ().adding({"A": "1", "B": "2"})
>>> one.adding({"A": "3"})
Environ({'B': '2', 'A': '3'})
>>> one
Environ({'A': '1', 'B': '2'})
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping

_FEW = 8  # more than these are not added one by one
ENTRY = 128  # bytes that a variable costs beside its text, wherever the whole environment is written out


class _Log:
    """`entries` by their number; `numbers` of the entries of a name, ascending."""

    __slots__ = ("entries", "numbers")

    def __init__(self) -> None:
        self.entries: dict[int, tuple[str, str]] = {}
        self.numbers: dict[str, list[int]] = {}


class Environ(Mapping[str, str]):
    """Variables in the order in which they were set; one that is set again moves to the end.

    `size` is what it takes to write it out, in bytes, about.
    """

    __slots__ = ("_length", "_log", "size")

    def __init__(self) -> None:
        self._log = _Log()
        self._length = 0
        self.size = 0

    def adding(self, added: Mapping[str, str]) -> Environ:
        if len(added) > _FEW:
            return Environ._of({**{name: value for name, value in self.flat().items() if name not in added}, **added})
        found = self
        for entry in added.items():
            found = found._with(entry)
        return found

    def _with(self, entry: tuple[str, str]) -> Environ:
        name, value = entry
        grown = Environ._of(self.flat()) if self._length > 2 * len(self._log.numbers) + 16 else self
        if grown._log.entries.setdefault(grown._length, entry) is not entry:  # another one has grown from here
            grown = Environ._of(self.flat())
            grown._log.entries[grown._length] = entry
        before = self.get(name)
        made = Environ.__new__(Environ)
        made._log, made._length = grown._log, grown._length + 1
        made.size = self.size + len(value) - (len(before) if before is not None else -len(name) - ENTRY)
        made._log.numbers.setdefault(name, []).append(grown._length)
        return made

    @classmethod
    def _of(cls, variables: dict[str, str]) -> Environ:
        """These, with a log of their own."""
        made = cls()
        made._log.entries = dict(enumerate(variables.items()))
        made._log.numbers = {name: [number] for number, name in enumerate(variables)}
        made._length = len(variables)
        made.size = ENTRY * len(variables) + sum(map(len, variables)) + sum(map(len, variables.values()))
        return made

    def flat(self) -> dict[str, str]:
        """The same as a dict, which is faster to go through."""
        entries = self._log.entries
        flat: dict[str, str] = {}
        for number in range(self._length):
            name, value = entries[number]
            flat.pop(name, None)
            flat[name] = value
        return flat

    def _last(self, name: str) -> int:
        """The number of the entry of `name` that counts; -1 when it is not set."""
        numbers = self._log.numbers.get(name)
        if numbers is None:
            return -1
        if numbers[-1] < self._length:
            return numbers[-1]
        position = bisect_left(numbers, self._length)
        return numbers[position - 1] if position else -1

    def __getitem__(self, name: str) -> str:
        number = self._last(name)
        if number < 0:
            raise KeyError(name)
        return self._log.entries[number][1]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._last(name) >= 0

    def __iter__(self) -> Iterator[str]:
        return iter(self.flat())

    def __len__(self) -> int:
        return len(self.flat())

    def __hash__(self) -> int:
        return hash(frozenset(self.items()))

    def __repr__(self) -> str:
        return f"Environ({dict(self)})"
