"""The Control service of a running pybuildd, with grpcio as its client: builds, their progress, the store."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from google.rpc.status_pb2 import Status

from buildengine.api import control_pb2 as pb
from buildengine.api import gateway_pb2 as gateway
from buildengine.api.health_pb2 import HealthCheckRequest, HealthCheckResponse
from buildengine.api.policy_pb2 import Policy, Rule, Selector
from buildengine.api.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from buildengine.api.status import EXIT, VERTEX
from buildengine.events import Outcome, VertexEvent
from llb.definition import Definition
from llb.mounts import Bind, Tmpfs
from llb.sources import image
from llb.state import State, diff, merge, mkdir, mkfile, rm, scratch, symlink
from tests.builds import FIXTURES, Store
from tests.fakes.daemon import CONTROL, Client, Daemon, daemon, grpc

pytest_plugins = [FIXTURES]

LLB_BRIDGE = "moby.buildkit.v1.frontend.LLBBridge"


@pytest.fixture(scope="module")
def running(store_with_base: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("daemon")
    store = store_with_base.copy(place / "root")
    file = place / "buildkitd.toml"
    file.write_text('[frontend."dockerfile.v0"]\nenabled = false\n')
    with daemon(store.root, place, "--config", file, "--allow-insecure-entitlement", "network.host") as started:
        yield started


@pytest.fixture
def client(running: Daemon) -> Iterator[Client]:
    with running.client() as connected:
        yield connected


def files(text: str) -> Definition:
    """A build without steps: a file, a link to it, and both together."""
    one = scratch().file(mkdir("/srv").mkfile("/srv/it", text.encode()), name=f"write {text}")
    return merge([one, scratch().file(symlink("srv/it", f"/{text}"))], name=f"gather {text}").marshal()


def rule(**fields: Any) -> Policy:
    return Policy(rules=[Rule(**{"selector": Selector(identifier="*"), **fields})])


def shell(script: str) -> Definition:
    base: State = image("base")
    return base.run(script, name=script).root.marshal()


# --- what the daemon is ------------------------------------------------------------------------------------------


def test_a_worker_with_labels_and_platforms(client: Client) -> None:
    (record,) = client.unary("ListWorkers", pb.ListWorkersRequest(), pb.ListWorkersResponse).record
    assert record.ID
    assert record.Labels["org.mobyproject.buildkit.worker.executor"] == "oci"
    assert record.Labels["org.mobyproject.buildkit.worker.sandbox"] == "true"  # from the flag
    assert record.platforms[0].OS == "linux"
    assert record.BuildkitVersion.version.startswith("v0.26")
    assert not record.GCPolicy  # --oci-worker-gc=false


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        ('labels."org.mobyproject.buildkit.worker.executor"==oci', 1),
        ("labels.nowhere", 0),
        ("id==nobody", 0),
        ("id~=[0-9a-f]{24}", 1),
    ],
)
def test_workers_are_filtered(client: Client, filter: str, found: int) -> None:
    answer = client.unary("ListWorkers", pb.ListWorkersRequest(filter=[filter]), pb.ListWorkersResponse)
    assert len(answer.record) == found


def test_info(client: Client) -> None:
    version = client.unary("Info", pb.InfoRequest(), pb.InfoResponse).buildkitVersion
    assert re.fullmatch(r"v\d+\.\d+\.\d+\+pybuild\..+", version.version)
    assert version.package == "pybuild"


def test_health_and_reflection(client: Client) -> None:
    answer = client.unary(
        "Check", HealthCheckRequest(service=CONTROL), HealthCheckResponse, service="grpc.health.v1.Health"
    )
    assert answer.status == HealthCheckResponse.SERVING
    ask = client.channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=ServerReflectionRequest.SerializeToString,
        response_deserializer=ServerReflectionResponse.FromString,
    )
    (told,) = ask(iter([ServerReflectionRequest(list_services="")]), timeout=30)
    names = {service.name for service in told.list_services_response.service}
    assert {CONTROL, LLB_BRIDGE, "grpc.health.v1.Health"} <= names


def test_wrong_requests_are_refused(client: Client) -> None:
    for request, said in (
        (pb.SolveRequest(Ref=""), "needs a ref"),
        (client.request(files("x"), Frontend="dockerfile.v0"), "cannot be both set"),
        (client.request(Frontend="nofile.v0"), "invalid frontend: nofile.v0"),
        (client.request(Frontend="dockerfile.v0"), "invalid frontend: dockerfile.v0"),  # disabled
        (client.request(files("x"), Exporters=[pb.Exporter(Type="nothing")]), "nothing"),
        (client.request(files("x"), Entitlements=["security.insecure"]), "not allowed by build daemon configuration"),
        (
            client.request(files("x"), Cache=pb.CacheOptions(Exports=[pb.CacheOptionsEntry(Type="tape")])),
            'unknown cache exporter: "tape"',
        ),
        (client.request(files("x"), SourcePolicy=rule(selector=None)), "invalid nil selector in policy"),
        (client.request(files("x"), SourcePolicy=rule(action=9000)), "unknown type: 9000"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            client.unary("Solve", request, pb.SolveResponse)
        assert said in caught.value.details()
        assert caught.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNKNOWN)


# --- builds ------------------------------------------------------------------------------------------------------


def test_a_definition_is_built_and_told(client: Client) -> None:
    client.solve(files("told"), ref="told")
    told = client.status("told")
    steps = {name: vertex.outcome for name, vertex in told.vertices.items()}
    assert steps == {
        "write told": Outcome.DONE,
        "symlink /told -> srv/it": Outcome.DONE,
        "gather told": Outcome.DONE,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]+(\.\d+)?Z", told.metadata["buildkit-current-timestamp"])
    assert client.status("told").responses == told.responses  # as often as one likes


def test_a_second_build_is_cached(client: Client) -> None:
    client.solve(files("twice"))
    client.solve(files("twice"), ref="second")
    assert {vertex.outcome for vertex in client.status("second").vertices.values()} == {Outcome.CACHED}


def test_progress_may_be_asked_for_before_the_build(client: Client) -> None:
    call = client.stream("Status", pb.StatusRequest(Ref="early"), pb.StatusResponse)
    client.solve(files("early"), ref="early")
    assert {vertex.name for response in call for vertex in response.vertexes} >= {"gather early"}


def test_output_arrives_while_a_step_runs(client: Client) -> None:
    building = client.begin(shell("echo first; read line; echo never"), ref="talking")  # its standard input is empty
    client.until_output("talking", "first")
    building.result(timeout=60)
    assert client.status("talking").output == "first\nnever\n"


def test_a_failed_step_is_told_as_buildkit_tells_it(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.solve(shell("echo reason >&2; exit 7"), ref="failing")
    assert caught.value.code() is grpc.StatusCode.UNKNOWN
    assert "exit code: 7" in caught.value.details()
    told = dict(caught.value.trailing_metadata())
    details = {each.type_url: json.loads(each.value) for each in status_of(told).details}
    assert details[EXIT] == {"Code": 7}
    digest = details[VERTEX]["digest"]
    progress = client.status("failing")
    vertex = next(event for event in reversed(progress.events) if isinstance(event, VertexEvent))
    assert (vertex.digest, vertex.outcome) == (digest, Outcome.FAILED)
    assert progress.output == "reason\n"
    record = client.record("failing")
    assert "exit code: 7" in record.error.message
    assert not record.error.details
    assert record.externalError.size > 0


def status_of(metadata: dict[str, bytes]) -> Status:
    return Status.FromString(metadata["grpc-status-details-bin"])


def test_a_ref_is_used_once_at_a_time(client: Client) -> None:
    building = client.begin(shell("echo busy; sleep 1000"), ref="same")
    client.until_output("same", "busy")
    with pytest.raises(grpc.RpcError, match="job ID same exists"):
        client.solve(files("same"), ref="same")
    building.cancel()


def test_a_client_that_vanishes_ends_its_build(client: Client) -> None:
    building = client.begin(shell("echo running; sleep 1000"), ref="vanishing")
    client.until_output("vanishing", "running")
    events = client.stream("ListenBuildHistory", pb.BuildHistoryRequest(Ref="vanishing"), pb.BuildHistoryEvent)
    assert next(events).type == pb.STARTED
    building.cancel()
    ended = next(events)
    events.cancel()
    assert ended.type == pb.COMPLETE
    assert ended.record.error.code == grpc.StatusCode.CANCELLED.value[0]
    assert ended.record.error.message == "context canceled"
    (step,) = [v for v in client.status("vanishing").vertices.values() if v.name.startswith("echo")]
    assert step.outcome is Outcome.CANCELED


def test_a_solve_of_nothing_waits_for_its_client(client: Client) -> None:
    building = client.begin(ref="waiting")
    mine = (("buildkit-controlapi-buildid", "waiting"),)
    pong = client.unary("Ping", gateway.PingRequest(), gateway.PongResponse, service=LLB_BRIDGE, metadata=mine)
    assert pong.Workers
    assert not building.done()
    client.unary("Return", gateway.ReturnRequest(), gateway.ReturnResponse, service=LLB_BRIDGE, metadata=mine)
    assert dict(building.result(timeout=30).ExporterResponse) == {}


def test_what_the_client_says_went_wrong_is_the_outcome(client: Client) -> None:
    building = client.begin(ref="giving-up")
    mine = (("buildkit-controlapi-buildid", "giving-up"),)
    error = gateway.ReturnRequest(error=Status(code=3, message="I cannot go on"))
    client.unary("Return", error, gateway.ReturnResponse, service=LLB_BRIDGE, metadata=mine)
    with pytest.raises(grpc.RpcError) as caught:
        building.result(timeout=30)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "I cannot go on")


def test_a_call_for_a_build_that_does_not_come(client: Client) -> None:
    for metadata, code in (
        ((("buildkit-controlapi-buildid", "nobody"),), grpc.StatusCode.NOT_FOUND),
        ((), grpc.StatusCode.UNKNOWN),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            client.unary("Ping", gateway.PingRequest(), gateway.PongResponse, service=LLB_BRIDGE, metadata=metadata)
        assert caught.value.code() is code


# --- the store ---------------------------------------------------------------------------------------------------


def test_usage_and_prune(store_with_base: Store, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("prune")
    with daemon(place / "root", place) as started, started.client() as client:
        client.solve(files("mass"), ref="mass")
        records = {record.Description: record for record in client.usage()}
        assert records["write mass"].Size > 0
        assert client.usage(filter=["type==exec.cachemount"]) == []
        assert client.usage(ageLimit=3600 * 10**9) == []  # everything was used within the hour
        with pytest.raises(grpc.RpcError, match="unknown filter field"):
            client.usage(filter=["colour==red"])
        client.unary("UpdateBuildHistory", pb.UpdateBuildHistoryRequest(Ref="mass", Delete=True), pb.InfoResponse)
        gone = client.prune(all=True)
        assert {record.ID for record in gone} >= {record.ID for record in records.values()}
        assert client.usage() == []


def test_an_image_config_from_a_client_without_a_frontend(client: Client, running: Daemon) -> None:
    """It comes as an attribute of the exporter; BuildKit's Go clients give it so."""
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Labels": {"from": "me"}}})
    attrs = {"containerimage.config": config, "name": "configured:1"}
    response = client.solve(files("config"), Exporters=[pb.Exporter(Type="image", Attrs=attrs)])
    stored = client.blob(response["containerimage.config.digest"])
    assert json.loads(stored)["config"]["Labels"] == {"from": "me"}
    response = client.solve(files("config"), Exporters=[pb.Exporter(Type="image", Attrs={"name": "usual:1"})])
    usual = json.loads(client.blob(response["containerimage.config.digest"]))
    assert usual["config"]["WorkingDir"] == "/"
    assert usual["config"]["Env"][0].startswith("PATH=/")


def test_a_copy_out_of_nothing(client: Client) -> None:
    """The empty tree as the source of a copy is no mistake of ours."""
    with pytest.raises(grpc.RpcError, match="/foo: no such file or directory"):
        client.solve(scratch().file(mkdir("/x").copy(scratch(), "/foo", "/x/")).marshal())


def test_each_exporter_is_remembered_and_the_last_answers(client: Client) -> None:
    exporters = [pb.Exporter(Type="image", Attrs={"name": f"{name}:1", **more}) for name, more in SEVERAL]
    response = client.solve(files("several"), ref="several", Exporters=exporters)
    assert response["image.name"] == "docker.io/library/second:1"
    results = client.record("several").Result.Results
    assert [results[place].media_type for place in (0, 1)] == [
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
    ]


def test_a_build_without_an_image_has_a_result_all_the_same(client: Client) -> None:
    """BuildKit's clients look into it without asking whether it is there."""
    client.solve(files("no image"), ref="plain")
    assert client.record("plain").HasField("Result")
    assert not client.record("plain").Result.Results


SEVERAL: tuple[tuple[str, dict[str, str]], ...] = (("first", {}), ("second", {"oci-mediatypes": "true"}))


def test_a_mount_at_a_relative_path(client: Client) -> None:
    """It starts at the step's directory."""
    step = image("base").with_dir("/tmp").run("echo here > /tmp/rel/file", mounts=[Tmpfs(target="rel")])
    client.solve(step.root.marshal())


# --- merges and differences --------------------------------------------------------------------------------------


def lists(tree: State, expected: str) -> Definition:
    """A step that looks at what is listed in a tree; it fails when that is not `expected`, or cannot be opened."""
    script = f'cd /mnt; found=$(find . -type f | sort | xargs); ls -lR . && test "$found" = "{expected}" # {expected}'
    return image("base").run(script, mounts=[Bind(target="/mnt", source=tree, output=False)]).root.marshal()


def test_what_a_difference_has_removed_is_listed_nowhere(client: Client) -> None:
    """Its whiteouts hide what it was made on; where that is not, they are not even names."""
    made = image("base").file(mkdir("/d").mkfile("/d/a", b"a").mkfile("/d/b", b"b").mkdir("/e").mkfile("/e/a", b"a"))
    # What is as before is left out of the layer, which is made anew for that: without the marks of the kernel.
    removed = made.run("rm /d/a /e/a; echo c > /d/c; chmod 600 /d/b; chmod 644 /d/b").root
    difference = diff(made, removed)
    client.solve(lists(difference, "./d/c"))
    client.solve(lists(difference.file(mkfile("/d/x", b"x")), "./d/c ./d/x"))
    other = scratch().file(mkdir("/d").mkfile("/d/a", b"other").mkfile("/d/z", b"z"))
    client.solve(lists(merge([other, difference]), "./d/c ./d/z"))


def test_a_difference_to_a_merge_that_comes_again_in_it(client: Client) -> None:
    a, b, c, e = (scratch().file(mkfile(f"/{name}", name.encode())) for name in "abce")
    abc = merge([a, b, c])
    nested = merge([abc.file(mkfile("/d", b"d")), merge([a, e]).file(rm("/a"))])
    client.solve(lists(nested, "./b ./c ./d ./e"))
    below = merge([a, b]).file(mkfile("/d", b"d"))
    client.solve(lists(merge([below, diff(abc, nested.file(rm("/d")))]), "./b ./e"))
    client.solve(lists(merge([a, b, a.file(rm("/a")), b, a]), "./a ./b"))
