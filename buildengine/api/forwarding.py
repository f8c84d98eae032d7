"""A client's ssh agent as a socket of this host: each connection to it is one `ForwardAgent` call.

Facts: BuildKit session/sshforward (ssh.go, copy.go).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

from buildengine.api.rpc import Channel, ClientCall, Code, RpcError
from buildengine.api.ssh_pb2 import BytesMessage, CheckAgentRequest, CheckAgentResponse
from buildengine.api.status import OURS
from worker.layers.outcome import one_error

CHECK_AGENT = "/moby.sshforward.v1.SSH/CheckAgent"
FORWARD_AGENT = "/moby.sshforward.v1.SSH/ForwardAgent"
_AGENT_ID = "buildkit.ssh.id"
_MOST = 64  # connections at once; the next wait in the kernel's queue
_CHUNK = 32 << 10
_LONGEST_ADDRESS = 107  # bytes, unix(7)

_GONE = (Code.UNAVAILABLE, Code.CANCELLED)

_Call = ClientCall[BytesMessage, BytesMessage]


async def has_agent(channel: Channel, agent: str) -> bool:
    """Whether the client forwards the agent: it refuses with whatever code. Raises RpcError when it is gone."""
    try:
        await channel.unary(CHECK_AGENT, CheckAgentRequest(ID=agent), CheckAgentResponse)
    except RpcError as error:
        if error.code in _GONE or any(detail.type_url == OURS for detail in error.details):
            raise  # the second: there is one, and a client of ours says what is wrong with it
        return False
    return True


@asynccontextmanager
async def agent_socket(channel: Channel, agent: str, *, spool: Path, owner: str) -> AsyncIterator[str]:
    """The path of a socket that leads to the client's agent, for as long as the block lasts.

    It lies in `spool`, a directory that nobody else can enter, as `<owner>.<random>`: whoever sweeps there takes it
    away when `owner`, a lease, has died.
    """
    directory = os.open(spool, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    name = f"{owner}.{secrets.token_hex(8)}"
    short = f"/proc/{os.getpid()}/fd/{directory}/{name}"
    try:
        with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as listener:
            await listener.bind(short)
            listener.listen()
            with one_error():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_serve, listener, channel, agent)
                    path = str(spool / name)
                    yield path if len(os.fsencode(path)) <= _LONGEST_ADDRESS else short
                    nursery.cancel_scope.cancel()
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
        os.close(directory)


async def _serve(listener: trio.socket.SocketType, channel: Channel, agent: str) -> None:
    free = trio.Semaphore(_MOST)
    async with trio.open_nursery() as nursery:
        while True:
            await free.acquire()
            connection, _ = await listener.accept()
            nursery.start_soon(_carry, trio.SocketStream(connection), channel, agent, free)


async def _carry(here: trio.SocketStream, channel: Channel, agent: str, free: trio.Semaphore) -> None:
    """One conversation. A client that is gone, or a step that hangs up, ends it for both."""
    try:
        async with here:
            with suppress(RpcError, trio.BrokenResourceError), one_error():
                metadata = ((_AGENT_ID, agent),)
                call = channel.stream(FORWARD_AGENT, BytesMessage, BytesMessage, metadata=metadata)
                async with call as there, trio.open_nursery() as nursery:
                    nursery.start_soon(_send, here, there)
                    while (message := await there.receive()) is not None:
                        await here.send_all(message.data)
                    nursery.cancel_scope.cancel()
    finally:
        free.release()


async def _send(here: trio.SocketStream, there: _Call) -> None:
    while data := await here.receive_some(_CHUNK):
        await there.send(BytesMessage(data=bytes(data)))
    await there.half_close()
