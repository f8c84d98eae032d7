"""What should happen next for one edge: a pure machine. Events in, requests out, nothing else.

Rule 1: everything that decides what is looked up, loaded, computed or executed for an edge stands in this file.

Rule 2: this file touches nothing. It sees no result, store, op, task or clock; keys and records are strings to it. It
imports no trio. `step` is a function of values.

Rule 3: it says what should be going on, not how to get there. `_activities` is a function of the state; `step`
compares its answer with what is already going on and requests the difference. So nothing can be left running
that nobody needs, and nothing can be forgotten.


Theory of operation
===================

An edge is one output of a vertex. It climbs four levels, never down, and only as far as somebody wants:

    NONE             nothing is known
    DEFINITION_KEYS  all keys are known that follow from definitions: the op's cache map and the inputs' keys
    CONTENT_KEYS     all keys are known that can be; content was read where definitions led nowhere
    RESULT           the result is there: loaded from a record, or made by executing the op

Keys grow on the way. They are given to those who want the edge (`Answer`), who look up what they lead to.

Each input of an edge climbs too, as far as *this* edge wants it. An input is `matched` when some of its keys has a
link in the store for this op; the edge's own keys are the targets that all inputs lead to. An input is `exhausted`
when no more keys can come of it: its content key is known, or, if the op takes none of it, it stands at
CONTENT_KEYS. Whoever looks for a record does so in this order:

    1. All inputs go to DEFINITION_KEYS, together with loading the cache map.
    2. A record at any moment ends the search: it is loaded, and nothing more is asked of the inputs. That is
       how a hit avoids pulling the base image.
    3. Inputs that are not matched climb on, rung by rung: CONTENT_KEYS, then, where the op takes the content key,
       RESULT, then the content key. The others wait: while they might still match, their content is not worth
       pulling for (moby/buildkit#648).
    4. When all inputs are matched but no target has a record, all climb.
    5. An unmatched input that is exhausted, or nothing left to climb, is a dead end: there is no record.
       All inputs go to RESULT, all content keys are computed (they are stored with the result), the op executes.

An edge that has a record, or is in a dead end, stands at CONTENT_KEYS without climbing: what its inputs could
still tell would not change what its users can find.

`lookup=False` (a vertex with ignore_cache) never looks anything up and gives away no keys, so whoever uses it
finds nothing by its definition either and executes as well. Such an edge is *fresh*: see `is_fresh`. Its content
may still be recognised: then the search of its user ends in a record as usual.

Failures: the first batch of causes is final. Cancellation is no event: what was asked to stop never answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from solver.messages import (
    Activity,
    Answer,
    CacheMapLoaded,
    ComputeContentKey,
    ContentKey,
    Event,
    Execute,
    Executed,
    Failed,
    Found,
    InputDone,
    InputKeys,
    Level,
    LoadCacheMap,
    LoadRecord,
    LookAgain,
    Lookup,
    RecordLoaded,
    RecordMissing,
    Request,
    Stop,
    Unwanted,
    Wanted,
    WantInput,
)


class Input(NamedTuple):
    level: Level = Level.NONE
    keys: tuple[str, ...] = ()
    content: str | None = None
    matched: bool = False


class EdgeState(NamedTuple):
    """`content` is None until the cache map is loaded. `stale`: inputs whose keys were not looked up yet.

    A named tuple, not a data class: there is one for each step, and it is made five times as fast.
    """

    lookup: bool = True
    inputs: tuple[Input, ...] = ()
    wanted: Level = Level.NONE
    level: Level = Level.NONE
    content: tuple[bool, ...] | None = None
    keys: tuple[str, ...] = ()
    records: tuple[str, ...] = ()
    missing: frozenset[str] = frozenset()
    stale: frozenset[int] | None = None
    looking: bool = False
    causes: tuple[object, ...] = ()
    going: frozenset[Activity] = frozenset()
    answered: tuple[Level, tuple[str, ...], tuple[object, ...]] = (Level.NONE, (), ())


def initial(inputs: int, *, lookup: bool) -> EdgeState:
    """Nothing known, nothing wanted."""
    return EdgeState(lookup=lookup, inputs=(Input(),) * inputs)


def is_fresh(state: EdgeState | _Draft) -> bool:
    """May this edge's result not be taken from the cache? It ignores it, or uses an input that did.

    Such an input has neither keys nor a content key. Whoever uses a fresh edge is fresh in turn, unless its
    content is recognised: else a record made from the old result would be taken for the new.
    """
    return not state.lookup or not all(one.keys or one.content for one in state.inputs)


def step(state: EdgeState, *events: Event) -> tuple[EdgeState, tuple[Request, ...]]:
    """The state after `events`, and what to request now. Several events at once are decided on once."""
    draft = _Draft(state)
    for event in events:
        _ABSORB[type(event)](draft, event)
    requests = _decide(draft)
    return draft.freeze(), requests


class _Draft:
    """A state while it changes inside `step`; nobody else sees it."""

    __slots__ = EdgeState._fields

    def __init__(self, state: EdgeState) -> None:
        (
            self.lookup, inputs, self.wanted, self.level, self.content, self.keys, self.records,
            self.missing, self.stale, self.looking, self.causes, self.going, self.answered,
        ) = state  # fmt: skip
        self.inputs = list(inputs)

    def freeze(self) -> EdgeState:
        return EdgeState(
            self.lookup, tuple(self.inputs), self.wanted, self.level, self.content, self.keys, self.records,
            self.missing, self.stale, self.looking, self.causes, self.going, self.answered,
        )  # fmt: skip

    def look_up(self, *inputs: int) -> None:
        """The keys of these inputs are to be looked up, as soon as the cache map says under which selector."""
        if self.lookup:
            self.stale = frozenset(inputs) if self.stale is None else self.stale.union(inputs)

    def advance(self, index: int, level: Level, keys: tuple[str, ...]) -> None:
        before = self.inputs[index]
        self.inputs[index] = before._replace(level=max(level, before.level), keys=keys)
        if keys != before.keys:
            self.look_up(index)

    def ended(self, activity: Activity) -> None:
        self.going = self.going.difference((activity,))


# --- what each event changes ------------------------------------------------------------------------------


def _wanted(draft: _Draft, event: Wanted) -> None:
    draft.wanted = event.level


def _unwanted(draft: _Draft, _event: Unwanted) -> None:
    draft.wanted = Level.NONE


def _cache_map_loaded(draft: _Draft, event: CacheMapLoaded) -> None:
    draft.ended(LoadCacheMap())
    draft.content = event.content
    known = [index for index, one in enumerate(draft.inputs) if one.keys]
    if known or not draft.inputs:  # without inputs the cache map alone makes the key
        draft.look_up(*known)


def _input_keys(draft: _Draft, event: InputKeys) -> None:
    draft.advance(event.index, event.level, event.keys)


def _input_done(draft: _Draft, event: InputDone) -> None:
    draft.advance(event.index, Level.RESULT, event.keys)


def _content_key(draft: _Draft, event: ContentKey) -> None:
    draft.ended(ComputeContentKey(index=event.index))
    draft.inputs[event.index] = draft.inputs[event.index]._replace(content=event.key)
    draft.look_up(event.index)


def _found(draft: _Draft, event: Found) -> None:
    draft.looking = False
    draft.keys = tuple(dict.fromkeys((*event.keys, *draft.keys)))
    draft.records = tuple([record for record in event.records if record not in draft.missing])
    for index in event.matched:
        draft.inputs[index] = draft.inputs[index]._replace(matched=True)


def _record_loaded(draft: _Draft, _event: RecordLoaded) -> None:
    draft.going = frozenset()
    draft.level = Level.RESULT


def _record_missing(draft: _Draft, event: RecordMissing) -> None:
    draft.ended(LoadRecord(record=event.record))
    draft.missing |= {event.record}
    draft.records = tuple([record for record in draft.records if record != event.record])


def _executed(draft: _Draft, event: Executed) -> None:
    draft.going = frozenset()
    draft.level = Level.RESULT
    draft.keys = () if is_fresh(draft) else tuple(dict.fromkeys((*draft.keys, *event.keys)))


def _look_again(draft: _Draft, _event: LookAgain) -> None:
    draft.ended(Execute())
    draft.look_up(*range(len(draft.inputs)))


def _failed(draft: _Draft, event: Failed) -> None:
    draft.looking = False  # the lookup itself may be what failed
    draft.causes = tuple(dict.fromkeys((*draft.causes, *event.causes)))


_ABSORB: dict[type, Callable[[_Draft, Any], None]] = {
    Wanted: _wanted,
    Unwanted: _unwanted,
    CacheMapLoaded: _cache_map_loaded,
    InputKeys: _input_keys,
    InputDone: _input_done,
    ContentKey: _content_key,
    Found: _found,
    RecordLoaded: _record_loaded,
    RecordMissing: _record_missing,
    Executed: _executed,
    LookAgain: _look_again,
    Failed: _failed,
}


# --- what follows from the state --------------------------------------------------------------------------


def _decide(draft: _Draft) -> tuple[Request, ...]:
    if draft.looking:
        return ()
    if draft.stale is not None and draft.content is not None and draft.level < Level.RESULT and not draft.causes:
        inputs, draft.stale, draft.looking = tuple(sorted(draft.stale)), None, True
        return (Lookup(inputs=inputs),)
    dead_end = _in_dead_end(draft)
    draft.level = max(draft.level, _level(draft, dead_end))
    wished = _activities(draft, dead_end)
    requests: list[Request] = []
    if draft.going:
        requests += _stops(draft, wished)
    if draft.answered != (draft.level, draft.keys, draft.causes):
        draft.answered = (draft.level, draft.keys, draft.causes)
        requests.append(Answer(level=draft.level, keys=draft.keys, causes=draft.causes))
    requests += [activity for activity in wished if activity not in draft.going]
    draft.going = frozenset(wished)
    return tuple(requests)


def _stops(draft: _Draft, wished: list[Activity]) -> list[Stop]:
    """What goes on and should not. A want needs no stop when it was answered, or another one replaces it."""
    stops = []
    replaced = {one.index for one in wished if isinstance(one, WantInput)}
    for one in draft.going.difference(wished):
        if not isinstance(one, WantInput) or (one.index not in replaced and one.level > draft.inputs[one.index].level):
            stops.append(Stop(activity=one))
    return stops


def _level(draft: _Draft, dead_end: bool) -> Level:
    if not draft.lookup or draft.records or dead_end:
        return Level.CONTENT_KEYS
    if draft.content is None or any(one.level is Level.NONE for one in draft.inputs):
        return Level.NONE
    return Level.DEFINITION_KEYS


def _activities(draft: _Draft, dead_end: bool) -> list[Activity]:
    """All that should be going on in this state: rule 3."""
    if draft.causes or draft.wanted <= draft.level:
        return []
    if draft.records:
        return [LoadRecord(record=draft.records[0])]
    loading: list[Activity] = [] if draft.content is not None else [LoadCacheMap()]
    if dead_end or not draft.lookup:
        return loading + _to_execute(draft)
    return loading + _to_search(draft)


def _to_execute(draft: _Draft) -> list[Activity]:
    """The theory's step 5: what is missing before the op can execute, or that it does."""
    wished: list[Activity] = []
    for index, one in enumerate(draft.inputs):
        if one.level < Level.RESULT:
            wished.append(WantInput(index=index, level=Level.RESULT))
        elif draft.content is not None and draft.content[index] and one.content is None:
            wished.append(ComputeContentKey(index=index))
    return wished if wished or draft.content is None else [Execute()]


def _to_search(draft: _Draft) -> list[Activity]:
    """What could lead to a record: the theory's steps 1, 3 and 4."""
    wished: list[Activity] = [
        WantInput(index=index, level=Level.DEFINITION_KEYS)
        for index, one in enumerate(draft.inputs)
        if one.level is Level.NONE
    ]
    if draft.content is None or draft.wanted <= Level.DEFINITION_KEYS:
        return wished
    climbing = [index for index, one in enumerate(draft.inputs) if one.level and not one.matched]
    if not climbing and not wished:
        climbing = [*range(len(draft.inputs))]
    return wished + [rung for index in climbing if (rung := _next_rung(draft, index)) is not None]


def _next_rung(draft: _Draft, index: int) -> Activity | None:
    """How an input gets more keys; None when it is exhausted."""
    one = draft.inputs[index]
    if one.level < Level.CONTENT_KEYS:
        return WantInput(index=index, level=Level(one.level + 1))
    if draft.content is None or not draft.content[index] or one.content is not None:
        return None
    if one.level < Level.RESULT:
        return WantInput(index=index, level=Level.RESULT)
    return ComputeContentKey(index=index)


def _in_dead_end(draft: _Draft) -> bool:
    """Is there certainly no record to be found? The theory's step 5, once the cache map is loaded."""
    if draft.content is None:
        return False
    climbing = False
    for one, takes_content in zip(draft.inputs, draft.content, strict=True):
        if one.content is not None if takes_content else one.level >= Level.CONTENT_KEYS:  # exhausted
            if not one.matched:
                return True
        else:
            climbing = True
    return not climbing
