"""ExecProcess in front of a bridge without a build: the messages of processes that are pipes in this test."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio

from buildengine.api import gateway_pb2 as pb
from buildengine.api.execprocess import UNKNOWN_EXIT, signal_number
from buildengine.api.gateway import container_order
from buildengine.api.rpc import ClientCall, Code, RpcError
from buildengine.api.status import EXIT
from buildengine.errors import UserError
from frontends.testing import ARM64
from llb.ops import MountType, NetMode, SecurityMode
from llb.pb import ops_pb2
from tests.fakes.bridges import FakeBridge, FakeProcess, served

Call = ClientCall[pb.ExecMessage, pb.ExecMessage]


@pytest.fixture
def process() -> Iterator[FakeProcess]:
    made = FakeProcess()
    yield made
    made.close()


def init(*fds: int, container: str = "c", tty: bool = False) -> pb.ExecMessage:
    meta = ops_pb2.Meta(args=["cat"], cwd="/", user="me")
    return pb.ExecMessage(ProcessID="p", Init=pb.InitMessage(ContainerID=container, Meta=meta, Fds=fds, Tty=tty))


def data(text: bytes = b"", *, fd: int = 0, end: bool = False) -> pb.ExecMessage:
    return pb.ExecMessage(ProcessID="p", File=pb.FdMessage(Fd=fd, Data=text, EOF=end))


@asynccontextmanager
async def begun(process: FakeProcess, *fds: int) -> AsyncIterator[Call]:
    """The stream of one process that has started."""
    async with served(FakeBridge(start=process)) as caller, caller.processes() as call:
        await call.send(init(*fds))
        assert await said(call) == "Started"
        yield call


async def said(call: Call) -> str:
    message = await call.receive()
    assert message is not None
    assert message.ProcessID == "p"
    return str(message.WhichOneof("Input"))


async def rest(call: Call) -> list[pb.ExecMessage]:
    """All that comes once the client has nothing more to say."""
    await call.half_close()
    messages = []
    while (message := await call.receive()) is not None:
        messages.append(message)
    return messages


def kinds(messages: list[pb.ExecMessage]) -> list[str]:
    return sorted(
        f"File {message.File.Fd} {message.File.EOF}" if message.HasField("File") else str(message.WhichOneof("Input"))
        for message in messages
    )


async def test_input_output_and_the_end(process: FakeProcess) -> None:
    async with begun(process, 0, 1, 2) as call:
        await call.send(data(b"hello"))
        await call.send(data(end=True))
        await trio.lowlevel.wait_readable(process.given)
        assert os.read(process.given, 10) == b"hello"
        await trio.lowlevel.wait_readable(process.given)
        assert os.read(process.given, 10) == b""
        os.write(process.out, b"out")
        message = await call.receive()
        assert message is not None
        assert (message.File.Fd, message.File.Data) == (1, b"out")
        os.write(process.err, b"last words")
        process.end()
        messages = await rest(call)
    assert kinds(messages) == ["Done", "Exit", "File 1 True", "File 2 False", "File 2 True"]
    assert messages[-1].HasField("Done")
    (exit,) = [message.Exit for message in messages if message.HasField("Exit")]
    assert (exit.Code, exit.HasField("Error")) == (0, False)


async def test_what_nobody_asked_for_is_not_told(process: FakeProcess) -> None:
    async with begun(process, 1) as call:
        os.write(process.err, b"unheard")
        process.end()
        assert kinds(await rest(call)) == ["Done", "Exit", "File 1 True"]


async def test_an_exit_status_is_an_error_with_a_detail(process: FakeProcess) -> None:
    async with begun(process) as call:
        process.end(42)
        exit = (await rest(call))[0].Exit
    assert (exit.Code, exit.Error.message) == (42, "exit code: 42")
    assert (exit.Error.details[0].type_url, exit.Error.details[0].value) == (EXIT, b'{"Code":42}')


async def test_a_released_container(process: FakeProcess) -> None:
    async with begun(process) as call:
        process.end(RpcError(Code.CANCELLED, "context canceled"))
        exit = (await rest(call))[0].Exit
    assert (exit.Code, exit.Error.code, exit.Error.message) == (UNKNOWN_EXIT, Code.CANCELLED, "context canceled")


async def test_a_stream_that_is_cut_off_kills_what_runs(process: FakeProcess) -> None:
    async with begun(process, 1):
        pass  # leaving the block cancels the call
    assert process.signals == [signal.SIGKILL]


async def test_what_has_ended_is_not_killed(process: FakeProcess) -> None:
    async with begun(process, 1) as call:
        process.end()
        await rest(call)
    assert process.signals == []


async def test_a_process_that_cannot_start_ends_and_others_go_on(process: FakeProcess) -> None:
    bridge = FakeBridge(start=UserError("no such program"))
    async with served(bridge) as caller, caller.processes() as call:
        await call.send(init(1))
        assert await said(call) == "Started"
        first = [await call.receive() for _ in range(3)]
        bridge.answers["start"] = process
        other = init()
        other.ProcessID = "q"
        await call.send(other)
        message = await call.receive()
        assert message is not None
        assert (message.ProcessID, message.HasField("Started")) == ("q", True)
        process.end()
        await rest(call)
    (exit,) = [message.Exit for message in first if message is not None and message.HasField("Exit")]
    assert (exit.Code, exit.Error.message) == (UNKNOWN_EXIT, "no such program")


async def test_signals_and_sizes(process: FakeProcess) -> None:
    async with begun(process) as call:
        await call.send(pb.ExecMessage(ProcessID="p", Signal=pb.SignalMessage(Name="INT")))
        await call.send(pb.ExecMessage(ProcessID="p", Resize=pb.ResizeMessage(Rows=1, Cols=1)))  # it has no terminal
        await call.half_close()
        process.end()
        await rest(call)
    assert process.signals == [signal.SIGINT]


async def test_what_is_asked_for_is_passed_on(process: FakeProcess) -> None:
    bridge = FakeBridge(start=process)
    async with served(bridge) as caller, caller.processes() as call:
        message = init(0, tty=True)
        message.Init.Security = ops_pb2.INSECURE
        message.Init.secretenv.add(ID="token", name="TOKEN", optional=True)
        await call.send(message)
        await said(call)
        process.end()
        await rest(call)
    ((_, order),) = bridge.asked
    assert (order.container, order.terminal, order.stdin) == ("c", True, True)
    assert (order.op.meta.args, order.op.meta.user, order.op.security) == (("cat",), "me", SecurityMode.INSECURE)
    assert [(secret.id, secret.name, secret.optional) for secret in order.op.secret_env] == [("token", "TOKEN", True)]


@pytest.mark.parametrize(
    ("messages", "code", "complaint"),
    [
        ([pb.ExecMessage()], Code.INVALID_ARGUMENT, "ProcessID required"),
        ([data(b"x")], Code.NOT_FOUND, 'IO for process "p" not found'),
        ([init(0), init(0)], Code.ALREADY_EXISTS, "Process p already exists"),
        ([init(1), data(b"x")], Code.OUT_OF_RANGE, "fd 0 unavailable to write"),
        ([init(0, 1), data(b"x", fd=1)], Code.OUT_OF_RANGE, "fd 1 unavailable to write"),
        ([init(), pb.ExecMessage(ProcessID="p", Signal=pb.SignalMessage(Name="NO"))], Code.INVALID_ARGUMENT, "Unknown"),
    ],
)
async def test_what_the_stream_refuses(
    process: FakeProcess, messages: list[pb.ExecMessage], code: Code, complaint: str
) -> None:
    async with served(FakeBridge(start=process)) as caller, caller.processes() as call:
        for message in messages:
            await call.send(message)
        with pytest.raises(RpcError, match=complaint) as caught:
            await rest(call)
    assert caught.value.code is code


@pytest.mark.parametrize(
    ("name", "number"), [("INT", 2), ("SIGTERM", 15), ("RTMIN+2", signal.SIGRTMIN + 2), ("RTMAX", signal.SIGRTMAX)]
)
def test_names_of_signals(name: str, number: int) -> None:
    assert signal_number(name) == number


@pytest.mark.parametrize("name", ["", "NOPE", "INT+", "INT+x", "RTMAX+1", "_BLOCK", "RTMIN+²", "RTMIN+" + "9" * 5000])
def test_names_of_no_signal(name: str) -> None:
    with pytest.raises(RpcError, match="Unknown signal"):
        signal_number(name)


def test_the_references_of_mounts_are_inputs() -> None:
    request = pb.NewContainerRequest(
        ContainerID="c",
        Mounts=[
            ops_pb2.Mount(dest="/", resultID="r1", input=7),
            ops_pb2.Mount(dest="/tmp", mountType=ops_pb2.TMPFS),
            ops_pb2.Mount(dest="/in", resultID="r2", readonly=True, selector="sub"),
        ],
        Network=ops_pb2.NONE,
        platform=ops_pb2.Platform(OS="linux", Architecture="arm64"),
        extraHosts=[ops_pb2.HostIP(Host="h", IP="1.2.3.4")],
        hostname="box",
    )
    order = container_order(request)
    assert (order.id, order.refs, order.platform) == ("c", ("r1", "r2"), ARM64)
    assert [(mount.dest, mount.input, mount.output) for mount in order.op.mounts] == [
        ("/", 0, -1), ("/tmp", -1, -1), ("/in", 1, -1),
    ]  # fmt: skip
    _, memory, part = order.op.mounts
    assert (memory.type, part.readonly, part.selector) == (MountType.TMPFS, True, "sub")
    assert (order.op.network, order.op.meta.hostname, order.op.meta.extra_hosts[0].host) == (NetMode.NONE, "box", "h")


async def test_containers_are_made_and_released() -> None:
    bridge = FakeBridge()
    async with served(bridge) as call:
        await call("NewContainer", pb.NewContainerRequest(ContainerID="c"))
        await call("ReleaseContainer", pb.ReleaseContainerRequest(ContainerID="c"))
    assert bridge.asked[0][1].id == "c"
    assert bridge.asked[1] == ("release_container", "c")
