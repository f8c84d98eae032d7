"""A build of today beside an earlier one: which steps are which, what is different about each, and where it began.

A step's input is another one when no key and no content of it is one of then. Then the first cause leads: the earliest
step on the way down of which something of its own is different, or that ran anew without that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

from solver.steps import Fate
from worker.explain import facts as names
from worker.explain.differences import Declared, Difference, Variables, differences
from worker.explain.files import Listing
from worker.explain.pairing import pairs
from worker.explain.selection import files_changed, patterns
from worker.explain.step import Build, Step, StepInput

SOURCES = ("image", "http", "git")
_NOTHING = Declared()

FilesOf = Callable[[str], Listing | None]
"""The list of files of this name."""

WouldHit = Callable[[str, Sequence[Sequence[str]]], bool]
"""Whether the store has a record of an operation over inputs with these keys."""


class Comparison:
    """A build and an earlier one, step by step."""

    def __init__(
        self, now: Build, then: Build, *, files: FilesOf, would_hit: WouldHit, declared: Declared = _NOTHING
    ) -> None:
        self.earlier = then
        self.now = now.steps
        self.then = then.steps
        self._files = files
        self._would_hit = would_hit
        self._variables = Variables(declared=declared, now=now.arguments, then=then.arguments)
        self._pairs = pairs(self.now, self.then)

    def old(self, position: int) -> Step | None:
        """What the step is compared with; None where it is new."""
        paired = self._pairs.get(position)
        return None if paired is None else self.then[paired]

    @cached_property
    def own(self) -> tuple[tuple[Difference, ...], ...]:
        """Of each step what is different about itself, its files included."""
        return tuple([tuple(self._own(position)) for position in range(len(self.now))])

    @cached_property
    def changed(self) -> tuple[int, ...]:
        """The positions of steps that are new or different themselves, found out without reading lists of files."""
        return tuple([position for position in range(len(self.now)) if self._is_changed(position)])

    @property
    def changed_keys(self) -> tuple[str, ...]:
        """The keys that the steps that are different had then."""
        olds = [old for position in self.changed if (old := self.old(position)) is not None]
        return tuple([key for old in olds for key in old.keys])

    @cached_property
    def roots(self) -> tuple[int, ...]:
        """Where it began for each step: a position before its own, or its own."""
        found: list[int] = []
        for position in range(len(self.now)):
            below = next((below for below in self._others(position) if self._is_cause(below, found)), None)
            root = position if below is None else found[below]
            found.append(position if root != position and self._would_do_itself(position, root) else root)
        return tuple(found)

    def _is_cause(self, position: int, roots: Sequence[int]) -> bool:
        """Whether that it is another one says why: it changed, or ran, and is not only in another place."""
        step = self.now[position]
        if step.kind == "local" or step.is_part:
            return False
        changed = bool(self.own[position]) or self.old(position) is None or step.fate is Fate.RAN
        return changed or roots[position] != position

    def _would_do_itself(self, position: int, root: int) -> bool:
        """Whether what is different about the step itself is why, although it is made from something else than then.

        So it is if the store has the step of then, with the files of then, made from what there is today. And so it is
        taken to be if that was in the cache: a build made it before, most likely for this step as it was.
        """
        old = self.old(position)
        if old is None or not old.op or position not in self.changed:
            return False
        if self.now[root].fate is Fate.CACHED and self.now[root].kind not in SOURCES:
            return True
        inputs: list[tuple[str, ...]] = []
        for one, before in self._inputs(position):
            taken = before if self._is_local(one) else one
            inputs.append((*taken.keys, *((taken.content,) if taken.content is not None else ())))
        return len(inputs) == len(old.inputs) and self._would_hit(old.op, inputs)

    def taken(self) -> Iterator[tuple[int, int, tuple[str, ...], tuple[str, ...]]]:
        """Positions of steps that ran, and of inputs of theirs that hold something else, with the layers then and now.

        Only where the step itself takes the same of it.
        """
        for position, step in enumerate(self.now):
            old = self.old(position)
            if old is None or step.likeness != old.likeness or step.fate not in (Fate.RAN, Fate.FAILED):
                continue
            for index, (one, before) in enumerate(self._inputs(position)):
                if one.files and before.files and one.content != before.content and one.tree and before.tree:
                    yield position, index, before.tree, one.tree

    def replaced_input(self, position: int) -> str:
        """The name of what it was made from then, where that is not what it is made from now; "" otherwise."""
        for one, before in self._inputs(position):
            is_same = before.step < 0 or self._pairs.get(one.step) == before.step
            if not is_same and self._is_other(one, before):
                return self.then[before.step].name
        return ""

    def _others(self, position: int) -> Iterator[int]:
        """The positions of inputs that are others than then."""
        for one, before in self._inputs(position):
            if 0 <= one.step < position and self._is_other(one, before):
                yield one.step

    def _inputs(self, position: int) -> Iterator[tuple[StepInput, StepInput]]:
        old = self.old(position)
        return zip(self.now[position].inputs, old.inputs if old is not None else (), strict=False)

    def _is_other(self, one: StepInput, before: StepInput) -> bool:
        """Nothing is known of what nobody asked for."""
        if one.content is not None and before.content is not None:
            return one.content != before.content
        if not before.keys and before.content is None:
            return False
        return not set(one.keys).intersection(before.keys)

    def _is_local(self, one: StepInput) -> bool:
        return one.step >= 0 and self.now[one.step].kind == "local"

    def _is_changed(self, position: int) -> bool:
        if self.old(position) is None:
            return True
        return any(True for _ in self._said(position)) or any(True for _ in self._other_files(position))

    def _own(self, position: int) -> Iterator[Difference]:
        yield from self._said(position)
        for one, before in self._other_files(position):
            was = self.then[before.step].facts.get(names.EXCLUDE, "") if before.step >= 0 else ""
            now = self.now[one.step].facts.get(names.EXCLUDE, "")
            yield files_changed(self._files(before.files), self._files(one.files), (patterns(was), patterns(now)))

    def _said(self, position: int) -> Iterator[Difference]:
        """What is different in what the step says."""
        old, new = self.old(position), self.now[position]
        if old is None:
            return
        yield from differences(new, old, self._variables)
        for one, before in self._inputs(position):
            if one.step >= 0 and before.step >= 0 and self.now[one.step].is_part:
                yield from differences(self.now[one.step], self.then[before.step], self._variables)

    def _other_files(self, position: int) -> Iterator[tuple[StepInput, StepInput]]:
        """Directories of the user's of which the step reads something else."""
        for one, before in self._inputs(position):
            if self._is_local(one) and None not in (one.content, before.content) and one.content != before.content:
                yield one, before
