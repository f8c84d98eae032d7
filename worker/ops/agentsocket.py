"""A step's own way to the user's agent: a socket with the owner and mode that its mount asks for.

The agent's socket itself cannot be mounted: its owner and mode are the host's, and an OpenSSH agent hangs up on every
user but root and its own. So the step gets a socket of ours, and what is said there is carried to the agent.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import trio

from buildengine.errors import HostError
from llb import ops
from worker.layers.outcome import one_error

_MOST = 64  # connections of one mount that are carried at once; the next wait in the kernel's queue


@asynccontextmanager
async def agent_socket(agent: str, option: ops.SSHOpt, *, spool: Path, owner: str) -> AsyncIterator[str]:
    """The path of a socket that leads to the socket `agent`, for as long as the block lasts.

    It lies in `spool`, a directory that nobody else can enter, as `<owner>.<random>`: whoever sweeps there takes it
    away when `owner`, a lease, has died.
    """
    path = spool / f"{owner}.{secrets.token_hex(8)}"
    try:
        with _explained():
            listener = await _listen(path, option)
        with listener, one_error():  # the block's own, when it fails
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_serve, listener, agent)
                yield str(path)
                nursery.cancel_scope.cancel()
    finally:
        path.unlink(missing_ok=True)


async def _listen(path: Path, option: ops.SSHOpt) -> trio.socket.SocketType:
    listener = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    try:
        await _bind(listener, path)
        os.chown(path, option.uid, option.gid)
        os.chmod(path, option.mode)
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


async def _bind(listener: trio.socket.SocketType, path: Path) -> None:
    """Through the directory's descriptor: an address has at most 107 bytes, unix(7)."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        await listener.bind(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)


async def _serve(listener: trio.socket.SocketType, agent: str) -> None:
    """Raises HostError, which ends the step: nobody could tell it why it gets no answer."""
    free = trio.Semaphore(_MOST)
    async with trio.open_nursery() as nursery:
        while True:
            await free.acquire()
            with _explained():
                connection, _ = await listener.accept()
            nursery.start_soon(_carry, trio.SocketStream(connection), agent, free)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        few = error.errno in (errno.EMFILE, errno.ENFILE)
        raise HostError(
            f"cannot connect the step to the ssh agent: {error.strerror}",
            hint="raise the limit of open files (ulimit -n)" if few else None,
        ) from error


async def _carry(step: trio.SocketStream, agent: str, free: trio.Semaphore) -> None:
    """One conversation. An agent that is gone, or a step that hangs up, ends it for both."""
    try:
        async with step:
            with suppress(OSError, trio.BrokenResourceError):
                async with await trio.open_unix_socket(agent) as there, trio.open_nursery() as nursery:
                    nursery.start_soon(_copy, step, there, nursery.cancel_scope)
                    await _copy(there, step, nursery.cancel_scope)
                    nursery.cancel_scope.cancel()  # the agent has ended it
    finally:
        free.release()


async def _copy(source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope) -> None:
    """To the end of `source`, which `sink` is told. A side that is gone ends `both` directions.

    A program that dies with an answer unread is no end but ECONNRESET, unix(7); its agent would wait for more.
    """
    try:
        async for data in source:
            await sink.send_all(data)
        await sink.send_eof()
    except trio.BrokenResourceError:
        both.cancel()
