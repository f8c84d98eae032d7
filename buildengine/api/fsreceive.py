"""The receiving end of fsutil's protocol: a directory becomes what the other side lists.

The daemon takes a build context this way; `buildengine.client` takes exports so, in asyncio. What is there already
with the same stat is not asked for; what was not listed goes, unless the listing is merged into what is there.
Decisions are `fsutil`'s and `fsintake`'s, the disk is `fswrite`'s; here packets come and go in trio, and the disk's
work is done in batches by a thread.

Requests are sent by a task of their own: a sender that waits for us to take data does not read them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import trio

from buildengine.api.fsintake import Intake, Received, do, told
from buildengine.api.fspackets_pb2 import Packet
from buildengine.api.fsutil import Entry, ProtocolError, Receiving, Selected
from buildengine.api.fswalk import attributes_of
from buildengine.api.fswrite import Writer
from buildengine.errors import BuildError, ContextError
from buildengine.limits import DISK, offload
from worker.layers.outcome import one_error

_SAYING_WHY = 1.0  # seconds to tell the other side of our failure

Progress = Callable[[int], None]


class Packets(Protocol):
    """A call of ours to the client (`rpc.ClientCall`): the daemon opens it, whichever way the directory goes."""

    async def send(self, message: Packet, /) -> None: ...

    async def receive(self) -> Packet | None: ...

    async def receive_many(self) -> Sequence[Packet]: ...

    async def half_close(self) -> None: ...


async def receive(
    stream: Packets,
    root: int,
    known: dict[bytes, Entry],
    *,
    trust: bool = True,
    wanted: Callable[[str], bool] | None = None,
    progress: Progress | None = None,
) -> Received:
    """Make the open directory `root` what the sender lists. Raises ContextError, RpcError.

    `known` is what is there; what it leaves out is neither kept nor removed, but replaced. `trust`: what is there with
    the same stat has the same contents. `wanted`: of the paths for which it says no only the stats are taken, into one
    file (`Selected`). `progress` gets the bytes of all packets so far.
    """
    receiver = _Receiver(stream, root, progress or _nobody)
    try:
        with one_error():
            return await receiver.run(known, trust=trust, wanted=wanted)
    except (BuildError, OSError) as error:
        failure = error if isinstance(error, BuildError) else _disk_error(error)
        await say(stream, failure.message)
        raise failure from error
    finally:
        await receiver.close()


class _Receiver:
    def __init__(self, stream: Packets, root: int, progress: Progress) -> None:
        self._stream = stream
        self._root = root
        self._writer = Writer(root)
        self._progress = progress
        self._wake = trio.Event()

    async def close(self) -> None:
        if not self._writer.is_closed:
            with trio.CancelScope(shield=True):
                await offload(self._writer.close, limiter=DISK)

    async def run(self, known: dict[bytes, Entry], *, trust: bool, wanted: Callable[[str], bool] | None) -> Received:
        receiving = Receiving(known, trust=trust, attributes=partial(attributes_of, self._root))
        intake = Intake(receiving, self._writer, None if wanted is None else Selected(wanted))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask, intake.asks)
            while not intake.is_whole:
                for packet in await self._next():
                    intake.take(packet)
                self._wake.set()
                if intake.is_full:
                    self._progress(intake.bytes)
                    await offload(do, intake.work(), limiter=DISK)
            nursery.cancel_scope.cancel()  # nothing is left to be asked for
        self._progress(intake.bytes)
        await offload(do, [*intake.last_work(), self._writer.close], limiter=DISK)
        await self._stream.send(Packet(type=Packet.FIN))
        await self._drain()
        return intake.received()

    async def _ask(self, asks: deque[int]) -> None:
        while True:
            while asks:
                await self._stream.send(Packet(type=Packet.REQ, id=asks.popleft()))
            self._wake = trio.Event()
            await self._wake.wait()

    async def _next(self) -> Sequence[Packet]:
        packets = await self._stream.receive_many()
        if not packets:
            raise ProtocolError("the other side ended before it had sent everything")
        return packets

    async def _drain(self) -> None:
        """Until the sender has ended too."""
        while (packet := await self._stream.receive()) is not None:
            if packet.type == Packet.ERR:
                raise told(packet)
            if packet.type == Packet.FIN:
                await self._stream.half_close()


def _nobody(_bytes: int) -> None:
    pass


def _disk_error(error: OSError) -> ContextError:
    return ContextError(f"cannot write {error.filename or 'what was received'}: {error.strerror}")


async def say(stream: Packets, why: str) -> None:
    """Tell the other side, if it still listens."""
    with trio.move_on_after(_SAYING_WHY):
        try:
            await stream.send(Packet(type=Packet.ERR, data=why.encode()))
        except Exception:  # whatever is wrong with the call, our own failure is what matters
            return
