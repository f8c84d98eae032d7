"""Our transport before Go's gRPC: BuildKit's client calls our server, our client calls BuildKit's daemon."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from buildengine.api import control_pb2, rpc, worker_pb2
from buildengine.api.connection import open_channel, serve_connection
from buildengine.api.rpc import Channel, Code, Detail, RpcError
from tests.conformance.peer import daemon, directory
from tests.fakes.rpc_services import listening

CONTROL = "moby.buildkit.v1.Control"


async def buildctl(path: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of BuildKit's client before our server at `path`."""
    argv = [str(directory() / "buildctl"), "--addr", f"unix://{path}", *arguments]
    done = await trio.run_process(argv, capture_stdout=True, capture_stderr=True, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def test_its_client_calls_our_server(tmp_path: Path) -> None:
    async def workers(request: control_pb2.ListWorkersRequest, call: object) -> control_pb2.ListWorkersResponse:
        return control_pb2.ListWorkersResponse(record=[worker_pb2.WorkerRecord(ID="here")])

    async def usage(request: control_pb2.DiskUsageRequest, call: object) -> control_pb2.DiskUsageResponse:
        raise RpcError(Code.FAILED_PRECONDITION, "not so: ö%", (Detail(type_url="type.example/why", value=b"{}"),))

    async def prune(
        request: control_pb2.PruneRequest, call: rpc.ServerCall[control_pb2.PruneRequest, control_pb2.UsageRecord]
    ) -> None:
        for number in range(3000):
            await call.send(control_pb2.UsageRecord(ID=f"record{number}", Size=1, Description="x" * 100))

    services = rpc.service(
        CONTROL,
        {
            "ListWorkers": rpc.unary(control_pb2.ListWorkersRequest, control_pb2.ListWorkersResponse, workers),
            "DiskUsage": rpc.unary(control_pb2.DiskUsageRequest, control_pb2.DiskUsageResponse, usage),
            "Prune": rpc.server_stream(control_pb2.PruneRequest, control_pb2.UsageRecord, prune),
        },
    )
    async with listening(tmp_path / "s", services):
        code, out, _ = await buildctl(tmp_path / "s", "debug", "workers")
        assert (code, out.split()[2]) == (0, "here")
        code, _, error = await buildctl(tmp_path / "s", "du")
        assert (code, "FailedPrecondition" in error, "not so: ö%" in error) == (1, True, True)
        code, out, _ = await buildctl(tmp_path / "s", "prune")
        assert (code, out.count("record")) == (0, 3000)
        code, _, error = await buildctl(tmp_path / "s", "debug", "info")
        assert (code, f"unknown method Info for service {CONTROL}" in error) == (1, True)


class _Tunnel(trio.abc.Stream):
    """A session's bytes in the messages of Control.Session."""

    def __init__(self, call: rpc.ClientCall[control_pb2.BytesMessage, control_pb2.BytesMessage]) -> None:
        self._call = call

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._call.send(control_pb2.BytesMessage(data=bytes(data)))

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        message = await self._call.receive()
        return b"" if message is None else message.data

    async def wait_send_all_might_not_block(self) -> None: ...

    async def aclose(self) -> None: ...


@asynccontextmanager
async def calling(work: Path) -> AsyncIterator[Channel]:
    with daemon(work):
        async with await trio.open_unix_socket(work / "buildkitd.sock") as stream, open_channel(stream) as channel:
            yield channel


async def test_our_client_calls_its_daemon(tmp_path: Path) -> None:
    info = f"/{CONTROL}/Info", control_pb2.InfoRequest(), control_pb2.InfoResponse
    versions = []
    async with calling(tmp_path) as channel:

        async def ask() -> None:
            versions.append((await channel.unary(*info)).buildkitVersion.package)

        async with trio.open_nursery() as nursery:
            for _ in range(500):
                nursery.start_soon(ask)
        with pytest.raises(RpcError) as caught:
            await channel.unary(f"/{CONTROL}/Absent", control_pb2.InfoRequest(), control_pb2.InfoResponse)
        assert caught.value.code == Code.UNIMPLEMENTED
        # A stream that has no end, left: the connection goes on.
        status = control_pb2.StatusRequest, control_pb2.StatusResponse
        async with channel.stream(f"/{CONTROL}/Status", *status) as call:
            await call.send(control_pb2.StatusRequest(Ref="absent"))
        await ask()
    assert versions == ["github.com/moby/buildkit"] * 501


async def test_its_daemon_calls_our_server_inside_of_a_call(tmp_path: Path) -> None:
    """The reversed direction of a session: the daemon asks for the build file on the stream that we opened to it."""
    asked = trio.Event()

    async def diff_copy(call: rpc.ServerCall[control_pb2.BytesMessage, control_pb2.BytesMessage]) -> None:
        asked.set()
        raise RpcError(Code.NOT_FOUND, "no such directory here")

    path = "/moby.filesync.v1.FileSync/DiffCopy"
    services = {path: rpc.stream(control_pb2.BytesMessage, control_pb2.BytesMessage, diff_copy)}
    metadata = (
        ("x-docker-expose-session-uuid", "one"),
        ("x-docker-expose-session-name", "test"),
        ("x-docker-expose-session-sharedkey", ""),
        ("x-docker-expose-session-grpc-method", path),
    )
    solve = control_pb2.SolveRequest(Ref="build", Session="one", Frontend="dockerfile.v0")
    messages = control_pb2.BytesMessage, control_pb2.BytesMessage
    async with (
        calling(tmp_path) as channel,
        channel.stream(f"/{CONTROL}/Session", *messages, metadata=metadata) as session,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(serve_connection, _Tunnel(session), services)
        with pytest.raises(RpcError) as caught:
            await channel.unary(f"/{CONTROL}/Solve", solve, control_pb2.SolveResponse, timeout=60)
        assert asked.is_set()
        assert "no such directory here" in caught.value.message
        assert caught.value.details
        nursery.cancel_scope.cancel()
