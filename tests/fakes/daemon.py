"""`pybuildd` for a test: the program itself on a socket of its own, and grpcio as its client.

with daemon(tmp_path / "root", tmp_path / "d.sock") as running, running.client() as client:
    client.solve(definition, ref="one")
    assert client.status("one").names == [...]
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from buildengine.api import content_pb2, convert
from buildengine.api import control_pb2 as pb
from buildengine.events import Event, LogEvent, VertexEvent
from llb.definition import Definition
from llb.pb import ops_pb2

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import grpc

PYBUILDD = Path(sys.executable).with_name("pybuildd")
CONTROL = "moby.buildkit.v1.Control"
PATIENCE = 30.0
HARNESS = (  # what BuildKit's test harness passes, besides --root and --addr
    "--oci-worker=true",
    "--containerd-worker=false",
    "--oci-worker-gc=false",
    "--oci-worker-labels=org.mobyproject.buildkit.worker.sandbox=true",
    "--debug",
)


class Told:
    """A build's status stream to its end."""

    def __init__(self, responses: Sequence[pb.StatusResponse], metadata: Mapping[str, str]) -> None:
        self.responses = responses
        self.metadata = metadata
        self.events: list[Event] = [event for response in responses for event in convert.events(response)]

    @property
    def vertices(self) -> dict[str, VertexEvent]:
        """The last that was said of each step, by its name."""
        return {event.name: event for event in self.events if isinstance(event, VertexEvent)}

    @property
    def output(self) -> str:
        return b"".join(event.data for event in self.events if isinstance(event, LogEvent)).decode()


class Client:
    """The Control service. Errors are grpc.RpcError, as they come."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel

    def unary(self, method: str, request: Any, response: type[Any], *, service: str = CONTROL, **more: Any) -> Any:
        return self.method(method, response, service=service)(request, **{"timeout": PATIENCE, **more})

    def method(self, method: str, response: type[Any], *, service: str = CONTROL) -> Any:
        """A callable with `future`, for a call that is to be waited for later, or cancelled."""
        return self.channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )

    def stream(self, method: str, request: Any, response: type[Any], timeout: float | None = PATIENCE) -> Any:
        """The call: iterate over it, or cancel it."""
        return self.channel.unary_stream(
            f"/{CONTROL}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )(request, timeout=timeout)

    def request(self, definition: Definition | None = None, *, ref: str = "", **more: Any) -> pb.SolveRequest:
        given = None if definition is None else ops_pb2.Definition.FromString(definition.to_bytes())
        return pb.SolveRequest(Ref=ref or secrets.token_hex(8), Definition=given, **more)

    def solve(self, definition: Definition | None = None, *, ref: str = "", **more: Any) -> Mapping[str, str]:
        request = self.request(definition, ref=ref, **more)
        return dict(self.unary("Solve", request, pb.SolveResponse).ExporterResponse)

    def begin(self, definition: Definition | None = None, *, ref: str = "", **more: Any) -> Any:
        """A build that runs on; its `result()` waits for it."""
        return self.method("Solve", pb.SolveResponse).future(self.request(definition, ref=ref, **more))

    def status(self, ref: str) -> Told:
        call = self.stream("Status", pb.StatusRequest(Ref=ref), pb.StatusResponse)
        responses = list(call)
        return Told(responses, dict(call.initial_metadata()))

    def until_output(self, ref: str, text: str) -> None:
        """Wait until a step of the build has printed `text`."""
        call = self.stream("Status", pb.StatusRequest(Ref=ref), pb.StatusResponse)
        said = b""
        for response in call:
            said += b"".join(log.msg for log in response.logs)
            if text.encode() in said:
                call.cancel()
                return
        raise AssertionError(f"the build has ended without saying {text!r}, but {said!r}")

    def blob(self, digest: str) -> bytes:
        """A blob of the daemon's store."""
        read = self.channel.unary_stream(
            "/containerd.services.content.v1.Content/Read",
            request_serializer=content_pb2.ReadContentRequest.SerializeToString,
            response_deserializer=content_pb2.ReadContentResponse.FromString,
        )
        return b"".join(answer.data for answer in read(content_pb2.ReadContentRequest(digest=digest), timeout=PATIENCE))

    def history(self, **query: Any) -> list[pb.BuildHistoryEvent]:
        """What is known."""
        request = pb.BuildHistoryRequest(EarlyExit=True, **query)
        return list(self.stream("ListenBuildHistory", request, pb.BuildHistoryEvent))

    def record(self, ref: str) -> pb.BuildHistoryRecord:
        (event,) = self.history(Ref=ref)
        return event.record

    def usage(self, **query: Any) -> list[pb.UsageRecord]:
        return list(self.unary("DiskUsage", pb.DiskUsageRequest(**query), pb.DiskUsageResponse).record)

    def prune(self, **query: Any) -> list[pb.UsageRecord]:
        return list(self.stream("Prune", pb.PruneRequest(**query), pb.UsageRecord))


class Daemon:
    """A running one."""

    def __init__(self, process: subprocess.Popen[bytes], address: str, log: Path) -> None:
        self.process = process
        self.address = address
        self._log = log

    @contextmanager
    def client(self) -> Iterator[Client]:
        with grpc.insecure_channel(self.address) as channel:
            yield Client(channel)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; its exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextmanager
def daemon(
    root: Path,
    place: Path,
    *flags: object,
    environment: Mapping[str, str] | None = None,
    prefix: Sequence[object] = (),
    bare: bool = False,
) -> Iterator[Daemon]:
    """A daemon on the state directory `root` for this block; its socket and its log are in `place`.

    `prefix` are words in front of the program, which have to exec it. `bare`: no other flags than `flags`.
    """
    place.mkdir(exist_ok=True)
    path, log = place / "d.sock", place / "daemon.log"
    usual = () if bare else ("--addr", f"unix://{path}", *HARNESS)
    argv = [*prefix, PYBUILDD, "--root", root, *usual, *flags]
    given = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **(environment or {})}
    with open(log, "ab") as sink:
        process = subprocess.Popen(
            [str(word) for word in argv], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=given, cwd="/"
        )
    running = Daemon(process, f"unix:{path}", log)
    try:
        if not bare:
            wait_for(path, running)
        yield running
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()
                process.wait()


def wait_for(path: Path, running: Daemon) -> None:
    """Until the socket takes connections, which is before the engine is there."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and running.process.poll() is None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(str(path)) == 0:
                return
        time.sleep(0.01)
    raise AssertionError(f"pybuildd does not listen: {running.log[-2000:]}")
