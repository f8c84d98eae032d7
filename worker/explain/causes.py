"""From a build of today and an earlier one to the cause of each step, in words: what leads, and what follows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from buildengine.events import Cause, ExplainEvent
from buildengine.values import dataclass
from solver.steps import Fate
from worker.explain import facts as names
from worker.explain.comparison import SOURCES, Comparison
from worker.explain.differences import Difference
from worker.explain.secrecy import shown
from worker.explain.step import Build, Step, Today
from worker.explain.texts import moment, readable, short

_VAGUE = {Cause.STEP: 1, Cause.IMPORTED: 2, Cause.SAME: 2}
_NEVER_SEEN = "this store has not seen this build before"


@dataclass(frozen=True, slots=True, kw_only=True)
class Then:
    """An earlier build. `is_elsewhere`: it is another one that is like this."""

    build: Build
    made: float
    is_elsewhere: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Why:
    cause: Cause
    text: str
    details: tuple[str, ...] = ()


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
    if then is None or then.is_elsewhere or compared is None or step.kind not in SOURCES:
        return False
    return bool(compared.own[position])


def _is_secret(name: str, value: str) -> bool:
    return name.startswith(names.MOUNT) and value.startswith(("secret", "ssh"))


def _why(position: int, step: Step, known: Today, then: Then | None, compared: Comparison | None) -> _Why:
    if known.asked:
        return _Why(cause=Cause.ASKED, text=f"the cache was to be ignored: {known.asked}")
    if then is None or compared is None:
        return _Why(cause=Cause.FIRST, text=_NEVER_SEEN)
    why = _compared(position, step, known, compared)
    if not then.is_elsewhere:
        return why
    label = f"since {moment(then.made)}, from {then.build.label}: {why.text}"
    return _Why(
        cause=Cause.FIRST,
        text="this store has not seen this build before",
        details=(label, *why.details),
    )


def _compared(position: int, step: Step, known: Today, compared: Comparison) -> _Why:
    old, own, root = compared.old(position), compared.own[position], compared.roots[position]
    if root != position:
        news = [each for each in own if each not in compared.own[root]]
        return _Why(cause=Cause.STEP, text=_because(compared, root), details=_also(news))
    if old is None:
        return _Why(cause=Cause.NEW, text="this step is new: there was none like it")
    if own:
        return _Why(cause=own[0].cause, text=own[0].text, details=(*own[0].details, *_also(own[1:])))
    if replaced := compared.replaced_input(position):
        text = f"it is made from something else: then it was {short(replaced)}"
        return _Why(cause=Cause.STEP, text=text)
    return _without_difference(step, known, old)


def _without_difference(step: Step, known: Today, old: Step) -> _Why:
    if any(not one.keys and one.content is None for one in step.inputs):
        text = "it uses something that is another one in every build"
        return _Why(cause=Cause.UNKNOWN, text=text)
    if known.was_lost:
        text = "nothing has changed, but its stored result was damaged or gone"
        return _Why(cause=Cause.GONE, text=text)
    if old.fate is Fate.FAILED:
        text = "it failed the last time, and what fails is not kept"
        return _Why(cause=Cause.FAILED, text=text)
    if old.fate is Fate.PASSED_OVER:
        text = "it did not run then: the build ended before it, or did not need it"
        return _Why(cause=Cause.NEW, text=text)
    text = "nothing has changed, but its result is not in the store any more: pruned, or over the store's limits"
    return _Why(cause=Cause.GONE, text=text)


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
    kind = compared.now[root].kind
    if own and kind == "image":
        return f"because the base image is another one: {name}"
    if own and kind in SOURCES:
        return f"because {name} has brought something else"
    if compared.now[root].fate is Fate.CACHED:
        return f"because it is made from something else than then: {name}"
    return f"because {name} ran again"


def _also(own: Sequence[Difference]) -> tuple[str, ...]:
    lines: list[str] = []
    for each in own:
        lines += [f"also: {each.text}", *(f"  {line}" for line in each.details)]
    return tuple(lines)
