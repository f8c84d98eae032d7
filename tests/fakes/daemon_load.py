"""Clients by the hundred, in a process of their own: `with load("sessions" | "pings", ADDRESS, ...) as process`.

sessions ADDRESS IDLE CONTEXT OUT    IDLE sessions, and a build with a session for each directory of CONTEXT, all at
                                     a time; build N leaves its files in OUT/N. Prints a line of JSON once all builds
                                     have ended, and keeps the sessions until its standard input ends.
pings ADDRESS                        ListWorkers, one after the other, until its standard input ends; then the
                                     seconds that each took, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from buildengine.api import control_pb2 as pb
from buildengine.builder import BuildRequest, Export
from buildengine.client.build import build
from buildengine.client.connect import connect
from buildengine.client.session import offer, session
from buildengine.events import Event, Outcome, VertexEvent

_PAUSE = 0.005  # seconds between two pings
_FIRST = -10  # the niceness of who pings: what is measured is the daemon, not how long we wait for a processor


@contextmanager
def load(*words: object) -> Iterator[subprocess.Popen[str]]:
    """It is killed at the end of the block."""
    argv = [sys.executable, "-m", "tests.fakes.daemon_load", *map(str, words)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


async def sessions(address: str, idle: int, contexts: Path, out: Path) -> None:
    async with AsyncExitStack() as stack:
        for number in range(idle):
            connection = await stack.enter_async_context(connect(address))
            offered = offer(BuildRequest(ref=str(number)), {}, logins=None, environment={}, stdout=1)
            await stack.enter_async_context(session(connection, offered, str(number)))
        names = sorted(os.listdir(contexts))
        ran = await asyncio.gather(*(_build(address, contexts / name, out / name) for name in names))
        print(json.dumps(dict(zip(names, ran, strict=True))), flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def _build(address: str, context: Path, out: Path) -> list[str]:
    """The names of the steps that this build has seen run, not taken from the cache."""
    newest: dict[str, VertexEvent] = {}

    def heard(event: Event) -> None:
        if isinstance(event, VertexEvent):
            newest[event.digest] = event

    exports = (Export(type="local", dest=str(out)), Export(type="oci", dest=f"{out}.tar"))
    directories = {"context": context, "dockerfile": context}
    request = BuildRequest(ref=f"load-{context.name}", directories=directories, exports=exports)
    async with connect(address) as connection:
        await build(connection, request, heard)
    return [event.name for event in newest.values() if event.outcome is Outcome.DONE]


def pings(address: str) -> None:
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    import grpc

    os.setpriority(os.PRIO_PROCESS, 0, _FIRST)
    took = []
    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary(
            "/moby.buildkit.v1.Control/ListWorkers",
            request_serializer=pb.ListWorkersRequest.SerializeToString,
            response_deserializer=pb.ListWorkersResponse.FromString,
        )
        while not select.select([sys.stdin], [], [], _PAUSE)[0]:
            began = time.perf_counter()
            ask(pb.ListWorkersRequest())
            took.append(time.perf_counter() - began)
    print(json.dumps(took))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["sessions", address, idle, contexts, out]:
            asyncio.run(sessions(address, int(idle), Path(contexts), Path(out)))
        case ["pings", address]:
            pings(address)
        case _:
            sys.exit(__doc__)
