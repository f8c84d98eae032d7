"""The LLBBridge of a running pybuildd, with grpcio as its client: a build whose frontend is the test."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from queue import Queue
from typing import Any

import pytest
from google.rpc.status_pb2 import Status

from buildengine.api import control_pb2, gateway_pb2
from buildengine.api import gateway_pb2 as pb
from buildengine.api.bridge import BUILD_ID
from buildengine.api.gateway import SERVICE
from buildengine.api.solvestatus import SOLVE
from buildengine.api.status import EXIT, VERTEX
from llb.definition import Definition
from llb.mounts import Bind
from llb.pb import ops_pb2
from llb.sources import image
from llb.state import State, mkdir, mkfile, scratch
from tests.builds import FIXTURES, Store
from tests.fakes import leftovers
from tests.fakes.daemon import PATIENCE, Client, Daemon, daemon, grpc
from tests.fakes.runtime_steps import processes_with

pytest_plugins = [FIXTURES]


@pytest.fixture(scope="module")
def running(store_with_base: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("daemon")
    store = store_with_base.copy(place / "root")
    with daemon(store.root, place) as started:
        yield started


@pytest.fixture
def build(running: Daemon) -> Iterator[Build]:
    with running.client() as client:
        begun = Build(client)
        yield begun
        begun.solving.cancel()


class Build:
    """A build that waits for what this test returns."""

    def __init__(self, client: Client, **request: Any) -> None:
        self.client = client
        self.ref = secrets.token_hex(8)
        self.metadata = ((BUILD_ID, self.ref),)
        self.solving: Any = client.begin(ref=self.ref, **request)

    def __call__(self, method: str, request: Any) -> Any:
        name = type(request).__name__.removesuffix("Request")
        answer = getattr(gateway_pb2, "PongResponse" if name == "Ping" else f"{name}Response")
        return self.client.unary(method, request, answer, service=SERVICE, metadata=self.metadata)

    def solve(self, definition: Definition, *, evaluate: bool = False) -> str:
        given = ops_pb2.Definition.FromString(definition.to_bytes())
        request = pb.SolveRequest(Definition=given, allowResultReturn=True, allowResultArrayRef=True, Evaluate=evaluate)
        return str(self("Solve", request).result.ref.id)

    def finish(self, ref: str = "", **metadata: bytes) -> dict[str, str]:
        """Give back a result, and wait for the end of the build."""
        self("Return", pb.ReturnRequest(result=pb.Result(ref=pb.Ref(id=ref), metadata=metadata)))
        return dict(self.solving.result(PATIENCE).ExporterResponse)


TREE: State = scratch().file(mkfile("/a", b"0123456789", mode=0o640).mkfile("/b.txt", b"b"), name="write files")


def details(error: grpc.RpcError) -> dict[str, Any]:
    trailers = dict(error.trailing_metadata())
    status = Status.FromString(trailers["grpc-status-details-bin"])
    return {each.type_url: json.loads(each.value) for each in status.details}


# --- results -----------------------------------------------------------------------------------------------------


def test_a_result_is_exported_under_its_config(running: Daemon) -> None:
    config = {"architecture": "amd64", "os": "linux", "config": {"Labels": {"from": "me"}}}
    with running.client() as client:
        build = Build(client, Exporters=[control_pb2.Exporter(Type="image", Attrs={"name": "app:1"})])
        told = build.finish(build.solve(TREE.marshal()), **{"containerimage.config": json.dumps(config).encode()})
        stored = json.loads(client.blob(told["containerimage.config.digest"]))
    assert stored["config"]["Labels"] == {"from": "me"}
    assert len(stored["rootfs"]["diff_ids"]) == 1


def test_a_result_that_nobody_wants_is_not_exported(build: Build) -> None:
    assert build.finish(build.solve(TREE.marshal())) == {}


def test_nothing_returned_is_a_build(build: Build) -> None:
    build("Return", pb.ReturnRequest())
    assert dict(build.solving.result(PATIENCE).ExporterResponse) == {}


def test_a_second_return_is_refused(build: Build) -> None:
    build.solve(TREE.marshal())
    build("Return", pb.ReturnRequest(error=Status(code=9, message="I cannot go on")))
    with pytest.raises(grpc.RpcError, match="I cannot go on") as caught:
        build.solving.result(PATIENCE)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    with pytest.raises(grpc.RpcError, match="no such job"):
        build("Ping", pb.PingRequest())


def test_a_build_that_is_cancelled_ends_its_calls(build: Build) -> None:
    ref = build.solve(image("base").run("echo begun; sleep 1000", name="wait").root.marshal())
    evaluate = build.client.method("Evaluate", pb.EvaluateResponse, service=SERVICE)
    evaluating = evaluate.future(pb.EvaluateRequest(Ref=ref), metadata=build.metadata)
    build.client.until_output(build.ref, "begun")
    build.solving.cancel()
    assert evaluating.exception(PATIENCE).code() is grpc.StatusCode.CANCELLED


# --- files -------------------------------------------------------------------------------------------------------


def test_files_of_a_result(build: Build) -> None:
    ref = build.solve(TREE.marshal())
    assert build("ReadFile", pb.ReadFileRequest(Ref=ref, FilePath="/a")).Data == b"0123456789"
    part = pb.FileRange(Offset=8, Length=10)
    assert build("ReadFile", pb.ReadFileRequest(Ref=ref, FilePath="a", Range=part)).Data == b"89"
    names = [entry.path for entry in build("ReadDir", pb.ReadDirRequest(Ref=ref, DirPath="/")).entries]
    assert names == ["a", "b.txt"]
    some = build("ReadDir", pb.ReadDirRequest(Ref=ref, DirPath="/", IncludePattern="*.txt")).entries
    assert [entry.path for entry in some] == ["b.txt"]
    stat = build("StatFile", pb.StatFileRequest(Ref=ref, Path="/a")).stat
    assert (stat.path, stat.mode, stat.size) == ("a", 0o640, 10)
    with pytest.raises(grpc.RpcError, match="/nothing"):
        build("StatFile", pb.StatFileRequest(Ref=ref, Path="/nothing"))
    build.finish(ref)


def test_a_failing_step_tells_what_it_was(build: Build) -> None:
    definition = image("base").run("exit 7", name="fail").root.marshal()
    ref = build.solve(definition)
    with pytest.raises(grpc.RpcError, match="exit code: 7") as caught:
        build("Evaluate", pb.EvaluateRequest(Ref=ref))
    told = details(caught.value)
    assert told[EXIT] == {"Code": 7}
    assert told[VERTEX]["digest"].startswith("sha256:")
    assert told[SOLVE]["op"]["exec"]["meta"]["args"][-1] == "exit 7"
    build("Return", pb.ReturnRequest())


def test_an_image_is_resolved(build: Build) -> None:
    answer = build("ResolveImageConfig", pb.ResolveImageConfigRequest(Ref="docker.io/library/base:latest"))
    assert answer.Digest.startswith("sha256:")
    assert json.loads(answer.Config)["config"]["Cmd"] == ["sh"]
    source = ops_pb2.SourceOp(identifier="docker-image://docker.io/library/base:latest")
    same = build("ResolveSourceMeta", pb.ResolveSourceMetaRequest(Source=source))
    assert same.Image.Digest == answer.Digest
    build("Return", pb.ReturnRequest())


# --- containers --------------------------------------------------------------------------------------------------


class Processes:
    """The one stream of a client's processes."""

    def __init__(self, build: Build) -> None:
        self._given: Queue[pb.ExecMessage | None] = Queue()
        call = build.client.channel.stream_stream(
            f"/{SERVICE}/ExecProcess",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=pb.ExecMessage.FromString,
        )
        self._answers = call(iter(self._given.get, None), metadata=build.metadata, timeout=PATIENCE)

    def start(self, id: str, *argv: str, fds: tuple[int, ...] = (1, 2), tty: bool = False, **meta: Any) -> None:
        made = ops_pb2.Meta(args=argv, cwd="/", **meta)
        self.say(id, Init=pb.InitMessage(ContainerID="c", Meta=made, Fds=fds, Tty=tty))

    def say(self, id: str, **said: Any) -> None:
        self._given.put(pb.ExecMessage(ProcessID=id, **said))

    def until(self, id: str, kind: str) -> bytes:
        """What the process prints before a message of this kind; of others there must be none."""
        printed = b""
        for message in self._answers:
            assert message.ProcessID == id
            printed += message.File.Data
            if message.WhichOneof("Input") == kind:
                self.last = message
                return printed
        raise AssertionError(f"the stream ended before {kind}")

    def run(self, id: str, *argv: str, **more: Any) -> tuple[bytes, int]:
        """A process to its end: what it printed, and its exit status."""
        self.start(id, *argv, **more)
        printed = self.until(id, "Exit")
        code = int(self.last.Exit.Code)
        return printed + self.until(id, "Done"), code

    def cut_off(self) -> None:
        self._answers.cancel()

    def end(self) -> None:
        self._given.put(None)
        assert list(self._answers) == []


def opened(build: Build, ref: str = "", **more: Any) -> Processes:
    root = ops_pb2.Mount(dest="/", resultID=ref or build.solve(image("base").marshal()))
    request = pb.NewContainerRequest(ContainerID="c", Mounts=[root], **more)
    build("NewContainer", request)
    return Processes(build)


def test_processes_in_one_container(build: Build) -> None:
    processes = opened(build, hostname="box", extraHosts=[ops_pb2.HostIP(Host="far", IP="192.0.2.1")])
    processes.start("first", "sleep", "1000")
    processes.until("first", "Started")
    assert processes.run("a", "sh", "-c", "hostname; echo written > /tmp/file") == (b"box\n", 0)
    assert processes.run("b", "cat", "/tmp/file", "/proc/1/comm") == (b"written\nsleep\n", 0)
    assert processes.run("c", "grep", "-c", "192.0.2.1.far", "/etc/hosts") == (b"1\n", 0)
    assert processes.run("d", "sh", "-c", "exit 5") == (b"", 5)
    with pytest.raises(grpc.RpcError, match="context canceled"):
        build("ReleaseContainer", pb.ReleaseContainerRequest(ContainerID="c"))
    processes.until("first", "Done")
    processes.end()
    build("Return", pb.ReturnRequest())
    build.solving.result(PATIENCE)


def test_a_container_that_is_still_being_made_takes_no_process(build: Build) -> None:
    ref = build.solve(image("base").run("echo begun; sleep 1000", name="wait").root.marshal())
    request = pb.NewContainerRequest(ContainerID="c", Mounts=[ops_pb2.Mount(dest="/", resultID=ref)])
    new_container = build.client.method("NewContainer", pb.NewContainerResponse, service=SERVICE)
    making = new_container.future(request, metadata=build.metadata)
    build.client.until_output(build.ref, "begun")
    processes = Processes(build)
    processes.start("p", "true")
    with pytest.raises(grpc.RpcError, match="not created") as caught:
        processes.until("p", "Started")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    making.cancel()


def test_a_terminal_with_a_size(build: Build) -> None:
    processes = opened(build)
    processes.start("p", "sh", "-c", "read word; stty size; echo got $word", fds=(0, 1), tty=True)
    processes.until("p", "Started")
    processes.say("p", Resize=pb.ResizeMessage(Rows=24, Cols=80))
    processes.say("p", File=pb.FdMessage(Fd=0, Data=b"it\n"))
    assert processes.until("p", "Exit") + processes.until("p", "Done") == b"it\r\n24 80\r\ngot it\r\n"
    build("ReleaseContainer", pb.ReleaseContainerRequest(ContainerID="c"))
    processes.end()


def test_input_and_signals(build: Build) -> None:
    processes = opened(build)
    processes.start("p", "sh", "-c", "trap 'exit 9' INT; echo ready; while :; do sleep 0.01; done")
    processes.until("p", "Started")
    processes.until("p", "File")
    processes.say("p", Signal=pb.SignalMessage(Name="INT"))
    processes.until("p", "Exit")
    assert processes.last.Exit.Code == 9
    processes.until("p", "Done")
    processes.end()


def test_a_client_that_cuts_its_stream_off_leaves_no_process(build: Build) -> None:
    processes, others = opened(build), Processes(build)
    processes.start("first", "sleep", "1000")
    processes.until("first", "Started")
    marker = secrets.token_hex(8)
    others.start("p", "sh", "-c", "echo ready; exec sleep 1000", env=[f"MARKER={marker}"])
    others.until("p", "File")
    others.cut_off()
    assert leftovers.until(lambda: processes_with(f"MARKER={marker}") == [])
    assert processes.run("q", "echo", "the container goes on") == (b"the container goes on\n", 0)


def test_a_failed_step_can_be_looked_at(build: Build) -> None:
    definition = image("base").run("echo left > /tmp/it; exit 7", name="fail").root.marshal()
    with pytest.raises(grpc.RpcError) as caught:
        build.solve(definition, evaluate=True)
    told = details(caught.value)[SOLVE]
    (before,), (after,) = told["inputIDs"], told["mountIDs"]
    assert [entry.path for entry in build("ReadDir", pb.ReadDirRequest(Ref=before, DirPath="/tmp")).entries] == []
    assert build("ReadFile", pb.ReadFileRequest(Ref=after, FilePath="/tmp/it")).Data == b"left\n"
    processes = opened(build, after)
    assert processes.run("p", "cat", "/tmp/it") == (b"left\n", 0)
    processes.end()
    with pytest.raises(grpc.RpcError, match="not found"):
        build.finish(after)
    build.finish()


def read(build: Build, ref: str, path: str) -> bytes:
    return bytes(build("ReadFile", pb.ReadFileRequest(Ref=ref, FilePath=path)).Data)


def test_a_failed_file_action_can_be_looked_at(build: Build) -> None:
    made = mkdir("/found").mkfile("/found/it", b"left").mkfile("/not/there", b"")
    with pytest.raises(grpc.RpcError) as caught:
        build.solve(scratch().file(made).marshal(), evaluate=True)
    told = details(caught.value)[SOLVE]
    assert told["file"] == {"index": "2"}
    assert "inputIDs" not in told
    assert [bool(ref) for ref in told["mountIDs"]] == [False, False, True]
    assert read(build, told["mountIDs"][2], "/found/it") == b"left"
    build.finish()


def test_an_input_that_cannot_be_digested_can_be_looked_at(build: Build) -> None:
    mounts = [Bind(target="/src", source=TREE, selector="/not/there", readonly=True)]
    with pytest.raises(grpc.RpcError) as caught:
        build.solve(image("base").run("true", mounts=mounts).root.marshal(), evaluate=True)
    told = details(caught.value)[SOLVE]
    assert told["cache"] == {"index": "1"}
    (ref,) = told["inputIDs"]
    assert read(build, ref, "/b.txt") == b"b"
    build.finish()


def test_the_end_of_a_build_is_that_of_its_containers(build: Build) -> None:
    processes = opened(build)
    marker = secrets.token_hex(8)
    processes.start("p", "sleep", "1000", env=[f"MARKER={marker}"])
    processes.until("p", "Started")
    build.finish()
    assert processes_with(f"MARKER={marker}") == []
