"""How a result was found or made, as a value for whoever writes it down elsewhere: names, links and records.

It is read from the graph of the build that made the result, not from the store: there are the links of everything
that was ever built, and what is exported must not depend on that. Only what a link's input may *hold* is asked of the
store, since a hit by definition leaves it unread.
"""

from __future__ import annotations

from dataclasses import field

from buildengine.digest import Digest
from buildengine.values import dataclass
from solver import cachekey
from solver.active import ActiveEdge
from solver.vertex import CacheRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLink:
    """The key number `key` of the graph, under this selector (its name: see `solver.cachekey`)."""

    selector: str
    key: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key by its name and by what leads to it: for each input one link or more. Without inputs, a path begins here.

    `records` are the results under it, the best first.
    """

    name: Digest
    inputs: tuple[tuple[KeyLink, ...], ...] = ()
    records: tuple[CacheRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyGraph:
    """Links lead to keys that come before."""

    keys: tuple[Key, ...] = field(default=())


def key_graph(root: ActiveEdge) -> KeyGraph:
    """All that leads to `root`."""
    writer = _Writer()
    waiting = [root]
    while waiting:
        edge = waiting[-1]
        missing = [one for one in edge.vertex.inputs if one not in writer.numbers] if edge not in writer.numbers else []
        if missing:
            waiting += reversed(missing)
        else:
            waiting.pop()
            writer.add(edge)
    return KeyGraph(keys=tuple(writer.keys))


def _known(edge: ActiveEdge) -> tuple[str, ...]:
    """The keys of the result that this build has, with what sources say of it; of one that it never took, all keys.

    By one definition there may be others, of results that were made at other times.
    """
    if not edge.keys:
        return edge.state.keys
    return (*edge.keys, *filter(cachekey.is_imported, edge.state.keys))


class _Writer:
    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.numbers: dict[ActiveEdge, tuple[int, ...]] = {}  # of its keys: none of what has none, as a local directory
        self._contents: dict[Digest, int] = {}

    def add(self, edge: ActiveEdge) -> None:
        if edge in self.numbers:
            return
        lookup = edge.lookup
        self.numbers[edge] = ()
        if lookup is None:
            return
        known = _known(edge)
        inputs = tuple([self._links(edge, index, known) for index in range(len(edge.vertex.inputs))])
        if not all(inputs):
            return
        records = lookup.known_records(known) if inputs else ()  # what nothing leads to is had from its own source
        for op in lookup.ops:
            name = cachekey.name_of(cachekey.root_key(op, edge.index))
            self.numbers[edge] += (self._append(Key(name=name, inputs=inputs, records=records)),)

    def _links(self, edge: ActiveEdge, index: int, known: tuple[str, ...]) -> tuple[KeyLink, ...]:
        lookup, state = edge.lookup, edge.state.inputs[index]
        assert lookup is not None
        selector = cachekey.selector_name(lookup.selector(index))
        numbers = self.numbers[edge.vertex.inputs[index]]
        links = [KeyLink(selector=selector, key=number) for number in numbers]
        contents = lookup.contents(known, index) - {self.keys[number].name for number in numbers}
        if state.content is not None:
            contents |= {cachekey.name_of(state.content)}
        return (*links, *[KeyLink(selector="", key=self._content(name)) for name in sorted(contents)])

    def _content(self, name: Digest) -> int:
        if name not in self._contents:
            self._contents[name] = self._append(Key(name=name))
        return self._contents[name]

    def _append(self, key: Key) -> int:
        self.keys.append(key)
        return len(self.keys) - 1
