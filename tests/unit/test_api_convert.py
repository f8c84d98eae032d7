"""Messages of the Control service and the engine's values: nothing is lost on the way there and back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildengine.api import control_pb2, convert, worker_pb2
from buildengine.builder import BuildRequest, CacheEntry, Export, PrunePolicy, UsageInfo
from buildengine.errors import Location, SourceRange, UserError
from buildengine.events import Event, LogEvent, Outcome, ProgressGroup, StatusEvent, VertexEvent, WarningEvent
from buildengine.platform import Platform, parse

moments = st.integers(0, 4 * 10**9).map(float)
texts = st.text(max_size=8)
statuses = st.builds(
    StatusEvent,
    id=texts,
    vertex=texts,
    name=texts,
    current=st.integers(0, 2**62),
    total=st.integers(0, 2**62),
    timestamp=moments,
    started=st.none() | moments,
    completed=st.none() | moments,
)
ended = st.sampled_from([Outcome.DONE, Outcome.CACHED])
vertexes = st.builds(
    VertexEvent,
    digest=texts,
    name=texts,
    inputs=st.lists(texts, max_size=2).map(tuple),
    started=moments,
    completed=moments,
    outcome=ended,
    group=st.none() | st.builds(ProgressGroup, id=st.text(min_size=1, max_size=4), name=texts, weak=st.booleans()),
)
warnings = st.builds(
    WarningEvent,
    vertex=texts,
    message=texts,
    level=st.integers(0, 9),
    detail=st.lists(texts, max_size=2).map(tuple),
    url=texts,
    location=st.none()
    | st.builds(
        Location,
        filename=texts,
        text=st.binary(max_size=9),
        ranges=st.just((SourceRange(start_line=1, end_line=2, start_column=3, end_column=4),)),
    ),
)
logs = st.builds(LogEvent, vertex=texts, stream=st.integers(1, 2), data=st.binary(max_size=9), timestamp=moments)


@given(st.one_of(statuses, vertexes, warnings, logs))
def test_an_event_is_the_same_on_the_other_side(event: Event) -> None:
    (response,) = convert.status_responses([event])
    assert list(convert.events(response)) == [event]


def test_what_was_cancelled_says_so() -> None:
    stopped = VertexEvent(digest="d", name="n", started=1.0, completed=2.0, outcome=Outcome.CANCELED)
    failed = VertexEvent(digest="d", name="n", started=1.0, completed=2.0, outcome=Outcome.FAILED, error="exit code: 1")
    (response,) = convert.status_responses([stopped, failed])
    assert [vertex.error for vertex in response.vertexes] == ["context canceled", "exit code: 1"]
    assert [event.outcome for event in convert.events(response)] == [Outcome.CANCELED, Outcome.FAILED]


def test_much_output_goes_in_several_messages() -> None:
    told = [LogEvent(vertex="v", stream=1, data=bytes([n]) * (900 << 10), timestamp=1.0) for n in range(3)]
    told.append(LogEvent(vertex="v", stream=2, data=b"x" * (3 << 20), timestamp=1.0))
    responses = list(convert.status_responses(told))
    assert all(response.ByteSize() < 2 << 20 for response in responses)
    assert b"".join(log.msg for response in responses for log in response.logs) == b"".join(e.data for e in told)


def test_nothing_to_tell_is_no_message() -> None:
    assert list(convert.status_responses([])) == []


def test_a_solve_is_a_request() -> None:
    request = convert.build_request(
        control_pb2.SolveRequest(
            Ref="r1",
            Frontend="dockerfile.v0",
            FrontendAttrs={"target": "app", "platform": "linux/amd64, linux/arm64"},
            Exporters=[control_pb2.Exporter(Type="oci", Attrs={"name": "a"}), control_pb2.Exporter(Type="tar")],
            ExporterDeprecated="oci",
            Entitlements=["network.host"],
        )
    )
    assert request.platforms == (parse("linux/amd64"), parse("linux/arm64"))
    assert request.exports == (Export(type="oci", attrs={"name": "a"}), Export(type="tar"))
    assert request.options["target"] == "app"
    assert request.entitlements == {"network.host"}


def test_caches_there_and_back() -> None:
    """The frontend is told of those to read as well: it is whoever asks for them."""
    entry, inline = CacheEntry(type="registry", attrs={"ref": "r.example/a"}), CacheEntry(type="inline")
    request = BuildRequest(ref="r", cache_imports=(entry,), cache_exports=(inline,))
    message = convert.solve_request(request, session="s")
    read = convert.build_request(message)
    assert (read.cache_imports, read.cache_exports) == ((entry,), (inline,))
    assert json.loads(message.FrontendAttrs["cache-imports"]) == [{"Type": "registry", "Attrs": {"ref": "r.example/a"}}]


def test_an_old_client_names_its_caches_elsewhere() -> None:
    old = control_pb2.CacheOptions(
        ImportRefsDeprecated=["a"], ExportRefDeprecated="b", ExportAttrsDeprecated={"mode": "max"}
    )
    request = convert.build_request(control_pb2.SolveRequest(Ref="r", Cache=old))
    assert request.cache_imports == (CacheEntry(type="registry", attrs={"ref": "a"}),)
    assert request.cache_exports == (CacheEntry(type="registry", attrs={"ref": "b", "mode": "max"}),)


def test_an_old_client_names_its_exporter_elsewhere() -> None:
    message = control_pb2.SolveRequest(Ref="r", ExporterDeprecated="local", ExporterAttrsDeprecated={"a": "b"})
    assert convert.build_request(message).exports == (Export(type="local", attrs={"a": "b"}),)


def test_a_solve_without_a_ref_or_for_no_platform() -> None:
    with pytest.raises(UserError, match="ref"):
        convert.build_request(control_pb2.SolveRequest())
    with pytest.raises(UserError, match="linux/"):
        convert.build_request(control_pb2.SolveRequest(Ref="r", FrontendAttrs={"platform": "linux/amd64,linux/"}))


@given(
    st.builds(
        UsageInfo,
        id=texts,
        parents=st.lists(texts, max_size=2).map(tuple),
        size=st.integers(0, 2**62),
        mutable=st.booleans(),
        created=moments,
        last_used=st.none() | moments,
        usage_count=st.integers(0, 2**31),
    )
)
def test_a_record_is_the_same_on_the_other_side(info: UsageInfo) -> None:
    assert convert.usage_info(convert.usage_record(info)) == info


def test_durations_are_nanoseconds_there() -> None:
    policy = convert.prune_policy(control_pb2.PruneRequest(keepDuration=1_500_000_000, filter=["a"], maxUsedSpace=7))
    assert policy == PrunePolicy(keep_duration=1.5, filters=("a",), max_used_space=7)
    record = convert.worker_record(
        id="w", labels={"a": "b"}, platforms=[Platform(os="linux", architecture="arm", variant="v7")],
        policies=[policy], version=worker_pb2.BuildkitVersion(version="v0"),
    )  # fmt: skip
    assert record.GCPolicy[0].keepDuration == 1_500_000_000
    assert record.platforms[0].Variant == "v7"


def test_times_keep_their_microseconds() -> None:
    assert convert.seconds(convert.timestamp(1_763_990_000.123456)) == pytest.approx(1_763_990_000.123456, abs=1e-6)
