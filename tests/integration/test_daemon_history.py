"""The build history of a running pybuildd: listened to, filtered, pinned, forgotten, and kept over a restart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from buildengine.api import control_pb2 as pb
from buildengine.api.journal import messages
from llb.definition import Definition
from llb.sources import image
from llb.state import mkdir, scratch
from tests.fakes.daemon import Client, Daemon, daemon, grpc


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("history")
    with daemon(place / "root", place) as started:
        yield started


@pytest.fixture
def client(running: Daemon) -> Iterator[Client]:
    with running.client() as connected:
        yield connected


@pytest.fixture
def root(running: Daemon) -> Path:
    return Path(running.process.args[running.process.args.index("--root") + 1])


def files(name: str) -> Definition:
    return scratch().file(mkdir("/srv").mkfile("/srv/it", name.encode()), name=f"write {name}").marshal()


def missing() -> Definition:
    """An image that is nowhere: a build that fails."""
    return image("127.0.0.1:1/nowhere:1").marshal()


def update(client: Client, ref: str, **what: bool) -> None:
    client.unary("UpdateBuildHistory", pb.UpdateBuildHistoryRequest(Ref=ref, **what), pb.UpdateBuildHistoryResponse)


def test_a_record_of_a_build(client: Client) -> None:
    attrs = {"context": "https://example.com/them/app.git"}
    client.solve(files("record"), ref="record", FrontendAttrs=attrs, Exporters=[pb.Exporter(Type="image")])
    record = client.record("record")
    assert (record.Ref, dict(record.FrontendAttrs), record.Exporters[0].Type) == ("record", attrs, "image")
    assert record.CreatedAt.ToNanoseconds() <= record.CompletedAt.ToNanoseconds()
    assert record.ExporterResponse["containerimage.digest"].startswith("sha256:")
    assert (record.numTotalSteps, record.numCompletedSteps, record.numCachedSteps) == (2, 2, 0)
    assert record.logs.media_type == "application/vnd.buildkit.status.v0"
    assert not record.HasField("error")


def test_a_record_has_a_provenance(client: Client, root: Path) -> None:
    """Whatever the client asked for; it is read as any other document, also through the content service."""
    asked = {
        "attest:provenance": "mode=min,builder-id=https://ci.example",
        "build-arg:BUILDKIT_HISTORY_PROVENANCE_V1": "1",
    }
    client.solve(files("one"), ref="provenance", FrontendAttrs=asked)
    (blob,) = client.record("provenance").Result.Attestations
    assert blob.media_type == "application/vnd.in-toto+json"
    assert dict(blob.annotations) == {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v1"}
    data = (root / "history" / blob.digest.removeprefix("sha256:")).read_bytes()
    assert len(data) == blob.size
    predicate = json.loads(data)
    assert predicate["runDetails"]["builder"] == {"id": "https://ci.example"}
    steps = predicate["buildDefinition"]["internalParameters"]["buildConfig"]["llbDefinition"]
    assert "file" in steps[0]["op"]["Op"]
    client.solve(files("one"), ref="internal-provenance", Internal=True)
    assert client.history(Ref="internal-provenance") == []
    with pytest.raises(grpc.RpcError):
        client.solve(missing(), ref="failed-provenance")
    assert not client.record("failed-provenance").HasField("Result")


def test_what_was_made_can_be_looked_at_when_it_is_pruned(client: Client, root: Path) -> None:
    """The index, its manifests and their configs are the record's as long as there is one; layers are not."""
    asked = {"attest:provenance": "mode=min"}
    exporter = pb.Exporter(Type="image", Attrs={"name": "kept:1", "store": "false"})
    client.solve(files("image"), ref="image", FrontendAttrs=asked, Exporters=[exporter])
    client.prune(all=True)

    def document(digest: str) -> Any:
        return json.loads((root / "history" / digest.removeprefix("sha256:")).read_bytes())

    update(client, "image", Pinned=True)
    index = document(client.record("image").Result.Results[0].digest)
    manifests = [document(entry["digest"]) for entry in index["manifests"]]
    assert [document(each["config"]["digest"])["rootfs"]["type"] for each in manifests] == ["layers", "layers"]
    layer = manifests[0]["layers"][0]["digest"].removeprefix("sha256:")
    assert not (root / "history" / layer).exists()
    update(client, "image", Delete=True)
    assert not (root / "history" / manifests[0]["config"]["digest"].removeprefix("sha256:")).exists()


def test_what_the_logs_are(client: Client, root: Path) -> None:
    """The status stream, message by message: other tools read it so."""
    client.solve(files("logs"), ref="logs")
    logs = client.record("logs").logs
    data = (root / "history" / logs.digest.removeprefix("sha256:")).read_bytes()
    assert len(data) == logs.size
    assert [response for response, _ in messages(data)] == list(client.status("logs").responses)


def test_listening(client: Client) -> None:
    """What is known comes first, then what happens, in its order."""
    client.solve(files("before"), ref="before")
    known = {event.record.Ref for event in client.history()}
    events = client.stream("ListenBuildHistory", pb.BuildHistoryRequest(), pb.BuildHistoryEvent)
    assert {next(events).record.Ref for _ in known} == known
    client.solve(files("after"), ref="after")
    told = [next(events), next(events)]
    events.cancel()
    assert [(event.type, event.record.Ref) for event in told] == [(pb.STARTED, "after"), (pb.COMPLETE, "after")]


def test_listening_to_one(client: Client) -> None:
    events = client.stream("ListenBuildHistory", pb.BuildHistoryRequest(Ref="mine"), pb.BuildHistoryEvent)
    events.initial_metadata()  # it listens
    client.solve(files("other"), ref="not-mine")
    client.solve(files("mine"), ref="mine")
    told = [next(events), next(events)]
    assert [(event.type, event.record.Ref) for event in told] == [(pb.STARTED, "mine"), (pb.COMPLETE, "mine")]
    events.cancel()


def test_an_internal_build_leaves_no_record(client: Client) -> None:
    client.solve(files("internal"), ref="internal", Internal=True)
    assert client.history(Ref="internal") == []
    assert client.status("internal").vertices  # it can be followed a moment longer


def test_the_probe_of_buildx(client: Client) -> None:
    """It asks for the builds that run under a ref that nobody has, and the answer ends."""
    assert client.history(ActiveOnly=True, Ref="buildx-test-history-api-feature") == []


def test_filters_and_limit(client: Client) -> None:
    client.solve(files("good"), ref="f-good", FrontendAttrs={"vcs:source": "https://example.com/them/filtered"})
    with pytest.raises(grpc.RpcError):
        client.solve(missing(), ref="f-bad")

    def found(*filters: str, **query: object) -> list[str]:
        return [event.record.Ref for event in client.history(Filter=filters, **query)]

    assert found("ref==f-good") == ["f-good"]
    assert found("status==error,ref~=^f-") == ["f-bad"]
    assert found("repository==https://example.com/them/filtered") == ["f-good"]
    assert found("ref==f-good", "ref==f-bad") == ["f-bad", "f-good"]
    assert found("startedAt>=1h,ref==f-bad") == ["f-bad"]
    assert found("startedAt<1h") == []
    assert found("ref~=^f-", Limit=1) == ["f-bad"]  # the newest
    with pytest.raises(grpc.RpcError, match="invalid filter"):
        found("==")


def test_pinning_and_forgetting(client: Client) -> None:
    client.solve(files("pinned"), ref="pinned")
    update(client, "pinned", Pinned=True)
    record = client.record("pinned")
    assert (record.pinned, record.Generation) == (True, 1)
    update(client, "pinned", Finalize=True)
    update(client, "pinned", Delete=True)
    assert client.history(Ref="pinned") == []
    for what in ({"Pinned": True}, {"Delete": True}):
        with pytest.raises(grpc.RpcError) as caught:
            update(client, "pinned", **what)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_who_listens_keeps_a_record(client: Client) -> None:
    """Deleted while somebody listens to it, it goes when he has left; nobody else sees it meanwhile."""
    client.solve(files("doomed"), ref="doomed")
    mine = client.stream("ListenBuildHistory", pb.BuildHistoryRequest(Ref="doomed"), pb.BuildHistoryEvent)
    assert next(mine).record.Ref == "doomed"
    everybody = client.stream("ListenBuildHistory", pb.BuildHistoryRequest(), pb.BuildHistoryEvent)
    everybody.initial_metadata()
    update(client, "doomed", Delete=True)
    assert "doomed" not in [event.record.Ref for event in client.history()]
    with pytest.raises(grpc.RpcError, match="is deleted"):
        client.history(Ref="doomed")
    mine.cancel()
    assert any(event.type == pb.DELETED and event.record.Ref == "doomed" for event in everybody)
    everybody.cancel()


def test_it_outlives_the_daemon(tmp_path: Path) -> None:
    with daemon(tmp_path / "root", tmp_path) as first, first.client() as client:
        client.solve(files("kept"), ref="kept")
        before, told = client.record("kept"), client.status("kept").responses
    with daemon(tmp_path / "root", tmp_path) as second, second.client() as client:
        assert client.record("kept") == before
        assert client.status("kept").responses == told
        update(client, "kept", Delete=True)
    assert list((tmp_path / "root/history").iterdir()) == []


def test_old_records_go(tmp_path: Path) -> None:
    """By [history]: what is old, and not among the newest, and not pinned."""
    config = tmp_path / "buildkitd.toml"
    config.write_text("[history]\nmaxAge = 0\nmaxEntries = 1\n")
    with daemon(tmp_path / "root", tmp_path) as first, first.client() as client:
        for ref in ("oldest", "pinned", "newest"):
            client.solve(files(ref), ref=ref)
        update(client, "pinned", Pinned=True)
    with daemon(tmp_path / "root", tmp_path, "--config", config) as second, second.client() as client:
        assert {event.record.Ref for event in client.history()} == {"pinned", "newest"}


def test_the_trace_of_a_build_is_part_of_its_clients(client: Client, root: Path) -> None:
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    request = client.request(files("traced"), ref="traced")
    metadata = [("traceparent", f"00-{trace}-{span}-01")]
    client.unary("Solve", request, pb.SolveResponse, metadata=metadata)
    update(client, "traced", Finalize=True)
    kept = client.record("traced").trace
    assert kept.media_type == "application/vnd.buildkit.otlp.json.v0"
    lines = (root / "history" / kept.digest.removeprefix("sha256:")).read_bytes().splitlines()
    call, *steps = [json.loads(line) for line in lines]
    assert call["Name"] == "moby.buildkit.v1.Control/Solve"
    assert call["Parent"]["SpanID"] == span
    assert [step["Name"] for step in steps] == ["write traced"]
    assert steps[0]["Parent"]["SpanID"] == call["SpanContext"]["SpanID"]
    assert {each["SpanContext"]["TraceID"] for each in (call, *steps)} == {trace}
    assert call["StartTime"] <= steps[0]["StartTime"] <= steps[0]["EndTime"] <= call["EndTime"]


def test_the_trace_of_a_build_that_failed(client: Client, root: Path) -> None:
    with pytest.raises(grpc.RpcError):
        client.solve(missing(), ref="broken trace")
    kept = client.record("broken trace").trace
    lines = (root / "history" / kept.digest.removeprefix("sha256:")).read_bytes().splitlines()
    call, *_ = [json.loads(line) for line in lines]
    assert call["Status"]["Code"] == 1
    assert "nowhere" in call["Status"]["Description"]
    assert call["Parent"]["TraceID"] == "0" * 32
