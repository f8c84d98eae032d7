"""The edge machine alone: scripts of events and the requests that they lead to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solver.edge import EdgeState, initial, is_fresh, step
from solver.messages import (
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

DEFINITION, CONTENT, RESULT = Level.DEFINITION_KEYS, Level.CONTENT_KEYS, Level.RESULT


class Edge:
    """A machine with the requests it has made."""

    def __init__(self, inputs: int = 0, *, lookup: bool = True) -> None:
        self.state: EdgeState = initial(inputs, lookup=lookup)

    def tell(self, *events: Event) -> list[Request]:
        self.state, requests = step(self.state, *events)
        return [*requests]


def want(index: int, level: Level) -> WantInput:
    return WantInput(index=index, level=level)


def keys(index: int, level: Level, *names: str) -> InputKeys:
    return InputKeys(index=index, level=level, keys=names)


def found(*matched: int, keys: tuple[str, ...] = (), records: tuple[str, ...] = ()) -> Found:
    return Found(matched=frozenset(matched), keys=keys, records=records)


def answer(level: Level, *names: str) -> Answer:
    return Answer(level=level, keys=names)


def test_nothing_happens_before_somebody_wants_it() -> None:
    edge = Edge(1)
    assert edge.tell(keys(0, CONTENT, "a")) == []
    assert edge.tell(Unwanted()) == []


def test_an_edge_without_inputs_has_all_its_keys_with_the_cache_map() -> None:
    edge = Edge()
    assert edge.tell(Wanted(level=DEFINITION)) == [LoadCacheMap()]
    assert edge.tell(CacheMapLoaded(content=())) == [Lookup(inputs=())]
    assert edge.tell(found(keys=("root",))) == [answer(CONTENT, "root")]
    assert edge.tell(Wanted(level=RESULT)) == [Execute()]
    assert edge.tell(Executed(keys=("root",))) == [answer(RESULT, "root")]


def test_definition_keys_of_all_inputs_are_asked_for_together_with_the_cache_map() -> None:
    edge = Edge(2)
    assert edge.tell(Wanted(level=RESULT)) == [LoadCacheMap(), want(0, DEFINITION), want(1, DEFINITION)]


def test_a_hit_by_definition_loads_the_record_and_asks_nothing_more_of_the_inputs() -> None:
    edge = Edge(2)
    edge.tell(Wanted(level=RESULT))
    assert edge.tell(CacheMapLoaded(content=(False, True))) == []
    assert edge.tell(keys(0, CONTENT, "a"), keys(1, DEFINITION, "b")) == [Lookup(inputs=(0, 1))]
    requests = edge.tell(found(0, 1, keys=("t",), records=("r2", "r1")))
    assert requests == [answer(CONTENT, "t"), LoadRecord(record="r2")]
    assert edge.tell(RecordLoaded()) == [answer(RESULT, "t")]


def test_a_hit_does_not_wait_for_inputs_that_are_still_climbing() -> None:
    edge = Edge(1)
    edge.tell(Wanted(level=RESULT), CacheMapLoaded(content=(True,)), keys(0, DEFINITION))
    edge.tell(keys(0, DEFINITION, "a"))
    assert edge.tell(found(0, keys=("t",), records=("r",))) == [
        Stop(activity=want(0, CONTENT)),
        answer(CONTENT, "t"),
        LoadRecord(record="r"),
    ]


def test_an_unmatched_input_climbs_and_a_matched_one_waits() -> None:
    edge = Edge(2)
    edge.tell(Wanted(level=RESULT), CacheMapLoaded(content=(True, True)))
    edge.tell(keys(0, DEFINITION, "a"), keys(1, DEFINITION, "b"))
    assert edge.tell(found(0)) == [answer(DEFINITION), want(1, CONTENT)]
    edge.tell(keys(1, CONTENT, "b", "c"))
    assert edge.tell(found()) == [want(1, RESULT)]
    assert edge.tell(InputDone(index=1, keys=("b", "c"))) == [ComputeContentKey(index=1)]
    assert edge.tell(ContentKey(index=1, key="content:1")) == [Lookup(inputs=(1,))]
    assert edge.tell(found(1, keys=("t",), records=("r",))) == [answer(CONTENT, "t"), LoadRecord(record="r")]


def test_an_unmatched_input_climbs_before_the_others_have_their_definition_keys() -> None:
    edge = Edge(2)
    edge.tell(Wanted(level=RESULT), CacheMapLoaded(content=(False, True)))
    edge.tell(keys(1, DEFINITION, "b"))
    assert edge.tell(found()) == [want(1, CONTENT)]


def test_when_all_are_matched_without_a_record_all_climb() -> None:
    edge = Edge(2)
    edge.tell(Wanted(level=RESULT), CacheMapLoaded(content=(False, True)))
    edge.tell(keys(0, DEFINITION, "a"), keys(1, CONTENT, "b"))
    assert edge.tell(found(0, 1, keys=("t",))) == [answer(DEFINITION, "t"), want(0, CONTENT), want(1, RESULT)]


def test_an_unmatched_exhausted_input_ends_the_search() -> None:
    edge = Edge(2)
    edge.tell(Wanted(level=RESULT), CacheMapLoaded(content=(False, True)), keys(1, DEFINITION, "b"))
    edge.tell(found(1))
    edge.tell(keys(0, CONTENT, "a"))
    assert edge.tell(found()) == [answer(CONTENT), want(0, RESULT), want(1, RESULT)]


def test_before_executing_content_keys_are_computed_since_they_are_stored_with_the_result() -> None:
    edge = Edge(2)
    edge.tell(Wanted(level=RESULT), CacheMapLoaded(content=(False, True)), keys(0, CONTENT, "a"), keys(1, CONTENT, "b"))
    edge.tell(found())
    edge.tell(InputDone(index=0, keys=("a",)))
    assert edge.tell(InputDone(index=1, keys=("b",))) == [ComputeContentKey(index=1)]
    edge.tell(ContentKey(index=1, key="content:1"))
    assert edge.tell(found()) == [Execute()]
    assert edge.tell(Executed(keys=("new",))) == [answer(RESULT, "new")]


def test_a_record_that_shows_up_last_is_taken_instead_of_executing() -> None:
    edge = Edge(1)
    edge.tell(Wanted(level=RESULT), CacheMapLoaded(content=(False,)), keys(0, CONTENT))
    assert edge.tell(InputDone(index=0, keys=("a",))) == [Lookup(inputs=(0,))]
    assert edge.tell(found(0, keys=("t",), records=("r",)))[-1] == LoadRecord(record="r")


def test_asked_for_keys_only_an_edge_with_a_record_is_done() -> None:
    edge = Edge(1)
    edge.tell(Wanted(level=CONTENT), CacheMapLoaded(content=(True,)), keys(0, DEFINITION, "a"))
    assert edge.tell(found(0, keys=("t",), records=("r",))) == [answer(CONTENT, "t")]


def test_asked_for_definition_keys_nothing_climbs() -> None:
    edge = Edge(1)
    edge.tell(Wanted(level=DEFINITION), CacheMapLoaded(content=(True,)), keys(0, DEFINITION, "a"))
    assert edge.tell(found()) == [answer(DEFINITION)]
    assert edge.tell(Wanted(level=CONTENT)) == [want(0, CONTENT)]


def test_keys_found_by_content_are_told_to_who_waits() -> None:
    """A RUN after a COPY: the local source's own key is another one in each session."""
    edge = Edge(2)
    edge.tell(Wanted(level=CONTENT), CacheMapLoaded(content=(False, True)), keys(0, CONTENT, "base"), keys(1, CONTENT))
    edge.tell(found(0), InputDone(index=1, keys=("random",)))
    edge.tell(found())
    edge.tell(ContentKey(index=1, key="content:1"))
    assert edge.tell(found(1, keys=("t",), records=("r",))) == [answer(CONTENT, "t")]


def test_a_missing_record_is_not_tried_again() -> None:
    edge = Edge()
    edge.tell(Wanted(level=RESULT), CacheMapLoaded(content=()))
    assert edge.tell(found(keys=("root",), records=("r2", "r1")))[-1] == LoadRecord(record="r2")
    assert edge.tell(RecordMissing(record="r2")) == [LoadRecord(record="r1")]
    assert edge.tell(RecordMissing(record="r1")) == [Execute()]
    assert edge.tell(LookAgain()) == [Lookup(inputs=())]
    assert edge.tell(found(keys=("root",), records=("r2", "r1"))) == [Execute()]


def test_what_another_process_has_stored_is_loaded() -> None:
    edge = Edge()
    edge.tell(Wanted(level=RESULT), CacheMapLoaded(content=()))
    edge.tell(found(keys=("root",)))
    assert edge.tell(LookAgain()) == [Lookup(inputs=())]
    assert edge.tell(found(keys=("root",), records=("r",))) == [LoadRecord(record="r")]


def test_ignore_cache_looks_nothing_up_and_gives_no_keys() -> None:
    edge = Edge(1, lookup=False)
    assert edge.tell(Wanted(level=CONTENT)) == [answer(CONTENT)]
    assert edge.tell(Wanted(level=RESULT)) == [LoadCacheMap(), want(0, RESULT)]
    assert edge.tell(CacheMapLoaded(content=(True,))) == []
    assert edge.tell(InputDone(index=0, keys=("a",))) == [ComputeContentKey(index=0)]
    assert edge.tell(ContentKey(index=0, key="content:1")) == [Execute()]
    assert edge.tell(Executed(keys=("t",))) == [answer(RESULT)]


def test_what_uses_a_fresh_input_is_fresh_too() -> None:
    edge = Edge(2)
    edge.tell(Wanted(level=RESULT), CacheMapLoaded(content=(False, False)), keys(0, CONTENT, "a"), keys(1, CONTENT))
    edge.tell(found(0))
    edge.tell(InputDone(index=0, keys=("a",)), InputDone(index=1, keys=()))
    assert is_fresh(edge.state)
    assert edge.tell(Executed(keys=("t",))) == [answer(RESULT)]


def test_a_fresh_input_whose_content_is_known_makes_nothing_fresh() -> None:
    edge = Edge(1)
    edge.tell(Wanted(level=RESULT), CacheMapLoaded(content=(True,)), InputDone(index=0, keys=()))
    edge.tell(ContentKey(index=0, key="content:1"))
    edge.tell(found())
    assert not is_fresh(edge.state)
    assert edge.tell(Executed(keys=("t",))) == [answer(RESULT, "t")]


@pytest.mark.parametrize(
    ("events", "going"),
    [
        ([], [LoadCacheMap(), want(0, DEFINITION)]),
        ([CacheMapLoaded(content=(True,)), keys(0, CONTENT)], [want(0, RESULT)]),
        ([CacheMapLoaded(content=(True,)), InputDone(index=0, keys=())], [ComputeContentKey(index=0)]),
        ([CacheMapLoaded(content=(False,)), InputDone(index=0, keys=())], [Execute()]),
        ([CacheMapLoaded(content=(False,)), keys(0, CONTENT), InputDone(index=0, keys=())], [Execute()]),
    ],
)
def test_when_nobody_wants_it_any_more_all_is_stopped_and_starts_again_when_somebody_does(
    events: list[Event], going: list[Request]
) -> None:
    edge = Edge(1)
    edge.tell(Wanted(level=RESULT), *events)
    stopped = edge.tell(Unwanted())
    assert sorted(map(repr, stopped)) == sorted([repr(Stop(activity=activity)) for activity in going])
    assert edge.tell(Wanted(level=RESULT)) == going


def test_a_lower_demand_stops_what_it_does_not_need() -> None:
    edge = Edge(1)
    edge.tell(Wanted(level=RESULT), CacheMapLoaded(content=(False,)), keys(0, CONTENT))
    assert edge.state.going == {want(0, RESULT)}
    assert edge.tell(Wanted(level=CONTENT)) == [Stop(activity=want(0, RESULT))]


def test_a_failure_stops_the_rest_and_is_answered_with_all_causes() -> None:
    edge = Edge(3)
    edge.tell(Wanted(level=RESULT), CacheMapLoaded(content=(False,) * 3), *[keys(i, CONTENT) for i in range(3)])
    requests = edge.tell(Failed(causes=("x",)), Failed(causes=("y", "x")))
    stops = [request for request in requests if isinstance(request, Stop)]
    assert {stop.activity for stop in stops} == {want(0, RESULT), want(1, RESULT), want(2, RESULT)}
    assert requests[-1] == Answer(level=CONTENT, causes=("x", "y"))
    assert edge.tell(Unwanted(), Wanted(level=RESULT)) == []


def test_after_a_failure_nothing_is_looked_up() -> None:
    edge = Edge(1)
    edge.tell(Wanted(level=RESULT), CacheMapLoaded(content=(False,)))
    assert edge.tell(keys(0, DEFINITION, "a"), Failed(causes=("no",))) == [
        Answer(level=DEFINITION, keys=(), causes=("no",))
    ]


def test_a_matched_input_waits_for_those_of_which_nothing_is_known_yet() -> None:
    edge = Edge(2)
    edge.tell(Wanted(level=RESULT), CacheMapLoaded(content=(True, True)))
    assert edge.tell(keys(0, DEFINITION, "a")) == [Lookup(inputs=(0,))]
    assert edge.tell(found(0)) == []


def test_many_events_at_once_are_decided_on_once() -> None:
    edge = Edge(3)
    edge.tell(Wanted(level=RESULT))
    assert edge.tell(*[keys(i, DEFINITION, "k") for i in range(3)], CacheMapLoaded(content=(False,) * 3)) == [
        Lookup(inputs=(0, 1, 2))
    ]


LEVELS = st.sampled_from(list(Level))
EVENTS = st.one_of(
    st.builds(Wanted, level=LEVELS),
    st.just(Unwanted()),
    st.just(CacheMapLoaded(content=(True, False))),
    st.builds(InputKeys, index=st.integers(0, 1), level=st.sampled_from([DEFINITION, CONTENT]), keys=st.just(("k",))),
    st.builds(InputDone, index=st.integers(0, 1), keys=st.sampled_from([(), ("k",)])),
    st.builds(ContentKey, index=st.just(0), key=st.just("content:1")),
    st.just(RecordMissing(record="r")),
    st.builds(Failed, causes=st.sampled_from([("x",), ("y",)])),
)


@given(st.lists(EVENTS, max_size=12), st.sets(st.integers(0, 1)), st.booleans(), st.booleans())
def test_whatever_comes_levels_never_fall_and_nothing_is_left_running_or_forgotten(
    events: list[Event], matched: set[int], record: bool, lookup: bool
) -> None:
    edge = Edge(2, lookup=lookup)
    running: set[object] = set()
    for event in events:
        before = edge.state
        requests = edge.tell(event)
        while requests and isinstance(requests[-1], Lookup):
            both = matched == {0, 1}
            requests = edge.tell(
                found(*matched, keys=("t",) if both else (), records=("r",) if both and record else ())
            )
        assert edge.state.level >= before.level
        for request in requests:
            if isinstance(request, Stop):
                running.discard(request.activity)
            elif not isinstance(request, Answer | Lookup):
                running.add(request)
        assert edge.state.going <= running
        idle = edge.state.causes or edge.state.level >= edge.state.wanted
        assert bool(edge.state.going) == (not idle)
