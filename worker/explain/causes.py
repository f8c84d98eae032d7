"""From what a build is made of today and was made of then to the cause of each step.

A step's input is another one when no key and no content of it is one of then. Then the first cause leads: the earliest
step on the way down of which something of its own is different, or that ran anew without that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

from buildengine.events import Cause, ExplainEvent
from buildengine.values import dataclass
from solver.steps import Fate
from worker.explain import facts as names
from worker.explain.differences import Declared, Difference, Variables, differences
from worker.explain.files import Listing
from worker.explain.pairing import pairs
from worker.explain.secrecy import shown
from worker.explain.selection import files_changed, patterns
from worker.explain.step import Build, Step, StepInput, Today
from worker.explain.texts import moment, readable, short

_SOURCES = ("image", "http", "git")

_VAGUE = {Cause.STEP: 1, Cause.IMPORTED: 2, Cause.SAME: 2}
_NEVER_SEEN = "this store has not seen this build before"
_NOTHING = Declared()

FilesOf = Callable[[str], Listing | None]
"""The list of files of this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Then:
    """An earlier build. `is_elsewhere`: it is another one that is like this."""

    build: Build
    made: float
    is_elsewhere: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Why:
    """`root` is the step where it began: the step's own position, where that is itself."""

    cause: Cause
    text: str
    details: tuple[str, ...] = ()
    root: int


class Comparison:
    """A build and an earlier one, step by step."""

    def __init__(self, now: Build, then: Build, files: FilesOf, declared: Declared = _NOTHING) -> None:
        self.earlier = then
        self.now = now.steps
        self.then = then.steps
        self._files = files
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
    def weight(self) -> int:
        """How unlike the two are."""
        return sum(len(own) or position not in self._pairs for position, own in enumerate(self.own))

    @cached_property
    def changed_keys(self) -> tuple[str, ...]:
        """The keys that the steps that are different had then."""
        return tuple([
            key for position, own in enumerate(self.own) if own and (old := self.old(position)) for key in old.keys
        ])  # fmt: skip

    @cached_property
    def roots(self) -> tuple[int, ...]:
        """Where it began for each step: a position before its own, or its own."""
        found: list[int] = []
        for position in range(len(self.now)):
            below = next((below for below in self._others(position) if self._is_cause(below, found)), None)
            found.append(position if below is None else found[below])
        return tuple(found)

    def _is_cause(self, position: int, roots: Sequence[int]) -> bool:
        """Whether that it is another one says why: it changed, or ran, and is not only in another place."""
        step = self.now[position]
        if step.kind == "local" or step.is_part:
            return False
        changed = bool(self.own[position]) or self.old(position) is None or step.fate is Fate.RAN
        return changed or roots[position] != position

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

    def _own(self, position: int) -> Iterator[Difference]:
        old, new = self.old(position), self.now[position]
        if old is None:
            return
        yield from differences(new, old, self._variables)
        for one, before in self._inputs(position):
            if one.step >= 0 and before.step >= 0 and self.now[one.step].is_part:
                yield from differences(self.now[one.step], self.then[before.step], self._variables)
            if one.content is None or before.content is None or one.content == before.content:
                continue
            if one.step >= 0 and self.now[one.step].kind == "local":
                was = self.then[before.step].facts.get(names.EXCLUDE, "") if before.step >= 0 else ""
                now = self.now[one.step].facts.get(names.EXCLUDE, "")
                excluded = (patterns(was), patterns(now))
                yield files_changed(self._files(before.files), self._files(one.files), excluded)


def explanations(
    now: Build,
    today: Sequence[Today],
    found: tuple[Then, Comparison] | None,
    in_stages: Mapping[int, Sequence[Difference]],
) -> list[ExplainEvent]:
    """One for each step that ran, failed or was found. `found` is the earlier build, None where there is none;
    `in_stages` what is different in what steps take from others, by their positions."""
    then, compared = found if found is not None else (None, None)
    told = []
    for position, (step, known) in enumerate(zip(now.steps, today, strict=True)):
        if step.kind == "local" or step.is_part or step.fate is Fate.PASSED_OVER:
            continue
        if step.fate is Fate.CACHED and not _is_moved(position, step, then, compared):
            told.append(_hit(step, known))
            continue
        why = _why(position, step, known, then, compared)
        made = then.made if then is not None and why.cause is not Cause.FIRST else None
        details = (*why.details, *_taken(in_stages.get(position, ())))
        told.append(_event(step, why.cause, why.text, details, made))
    return _once_a_name(told)


def _event(step: Step, cause: Cause, text: str, details: Sequence[str], since: float | None) -> ExplainEvent:
    return ExplainEvent(
        vertex=step.vertex,
        name=readable(shown(step.name)),
        fate=step.fate.value,
        cause=cause,
        text=readable(text),
        details=tuple(map(readable, details)),
        since=since,
    )


def _once_a_name(told: Sequence[ExplainEvent]) -> list[ExplainEvent]:
    """An instruction may be several steps (what an ADD loads, and adding it): the one that says most stands for all."""
    best: dict[str, ExplainEvent] = {}
    for event in told:
        known = best.get(event.name)
        if known is None or _VAGUE.get(event.cause, 0) <= _VAGUE.get(known.cause, 0):
            best[event.name] = event
    return [event for event in told if best[event.name] is event]


def _hit(step: Step, known: Today) -> ExplainEvent:
    secrets = [name.removeprefix(names.MOUNT) for name, value in step.facts.items() if _is_secret(name, value)]
    details = [f"what is mounted at {', '.join(secrets)} is never compared"] if secrets else []
    cause, text = Cause.SAME, "unchanged"
    if known.is_imported:
        cause, text = Cause.IMPORTED, "found in a cache of elsewhere (--cache-from), made of the same"
    return _event(step, cause, text, details, known.made)


def _is_moved(position: int, step: Step, then: Then | None, compared: Comparison | None) -> bool:
    """A source that was in the cache, and is another one than then all the same: it is why others ran."""
    if then is None or then.is_elsewhere or compared is None or step.kind not in _SOURCES:
        return False
    return bool(compared.own[position])


def _is_secret(name: str, value: str) -> bool:
    return name.startswith(names.MOUNT) and value.startswith(("secret", "ssh"))


def _why(position: int, step: Step, known: Today, then: Then | None, compared: Comparison | None) -> _Why:
    if known.asked:
        return _Why(cause=Cause.ASKED, text=f"the cache was to be ignored: {known.asked}", root=position)
    if then is None or compared is None:
        return _Why(cause=Cause.FIRST, text=_NEVER_SEEN, root=position)
    why = _compared(position, step, known, compared)
    if not then.is_elsewhere:
        return why
    label = f"since {moment(then.made)}, from {then.build.label}: {why.text}"
    return _Why(
        cause=Cause.FIRST,
        text="this store has not seen this build before",
        details=(label, *why.details),
        root=position,
    )


def _compared(position: int, step: Step, known: Today, compared: Comparison) -> _Why:
    old, own, root = compared.old(position), compared.own[position], compared.roots[position]
    if root != position:
        news = [each for each in own if each not in compared.own[root]]
        return _Why(cause=Cause.STEP, text=_because(compared, root), details=_also(news), root=root)
    if old is None:
        return _Why(cause=Cause.NEW, text="this step is new: there was none like it", root=position)
    if own:
        return _Why(cause=own[0].cause, text=own[0].text, details=(*own[0].details, *_also(own[1:])), root=position)
    if replaced := compared.replaced_input(position):
        text = f"it is made from something else: then it was {short(replaced)}"
        return _Why(cause=Cause.STEP, text=text, root=position)
    return _without_difference(position, step, known, old)


def _without_difference(position: int, step: Step, known: Today, old: Step) -> _Why:
    if any(not one.keys and one.content is None for one in step.inputs):
        text = "it uses something that is another one in every build"
        return _Why(cause=Cause.UNKNOWN, text=text, root=position)
    if known.was_lost:
        text = "nothing has changed, but its stored result was damaged or gone"
        return _Why(cause=Cause.GONE, text=text, root=position)
    if old.fate is Fate.FAILED:
        text = "it failed the last time, and what fails is not kept"
        return _Why(cause=Cause.FAILED, text=text, root=position)
    if old.fate is Fate.PASSED_OVER:
        text = "it did not run then: the build ended before it, or did not need it"
        return _Why(cause=Cause.NEW, text=text, root=position)
    text = "nothing has changed, but its result is not in the store any more: pruned, or over the store's limits"
    return _Why(cause=Cause.GONE, text=text, root=position)


def _taken(differences: Sequence[Difference]) -> tuple[str, ...]:
    lines: list[str] = []
    for each in differences:
        lines += [f"of what it takes: {each.text}", *(f"  {line}" for line in each.details)]
    return tuple(lines)


def _because(compared: Comparison, root: int) -> str:
    name = short(shown(compared.now[root].name))
    own = compared.own[root]
    if compared.old(root) is None:
        return f"because the step {name} before it is new"
    if own and own[0].cause is Cause.BASE:
        return f"because the base image is another one: {name}"
    if own and own[0].cause is Cause.SOURCE:
        return f"because {name} has brought something else"
    return f"because {name} ran again"


def _also(own: Sequence[Difference]) -> tuple[str, ...]:
    lines: list[str] = []
    for each in own:
        lines += [f"also: {each.text}", *(f"  {line}" for line in each.details)]
    return tuple(lines)
