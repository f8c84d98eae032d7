"""The two ends of a call that carries fsutil's packets, without a transport."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trio

from buildengine.api.fsintake import Received, present
from buildengine.api.fspackets_pb2 import Packet
from buildengine.api.fsreceive import receive
from buildengine.api.fssend import send
from cache.selection import Filter
from worker.layers.outcome import one_error


class End:
    """What it has sent stays in `sent`."""

    def __init__(self, out: trio.MemorySendChannel[bytes], come: trio.MemoryReceiveChannel[bytes]) -> None:
        self._out, self._come = out, come
        self.sent: list[Packet] = []

    async def send(self, message: Packet) -> None:
        self.sent.append(message)
        await self._out.send(message.SerializeToString())

    async def receive(self) -> Packet | None:
        with suppress(trio.EndOfChannel):
            return Packet.FromString(await self._come.receive())
        return None

    async def receive_many(self) -> list[Packet]:
        packet = await self.receive()
        return [] if packet is None else [packet]

    async def half_close(self) -> None:
        await self._out.aclose()


def pair() -> tuple[End, End]:
    there = trio.open_memory_channel[bytes](100)
    back = trio.open_memory_channel[bytes](100)
    return End(there[0], back[1]), End(back[0], there[1])


@asynccontextmanager
async def directory(path: Path) -> AsyncIterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


async def transfer(
    source: Path, target: Path, keep: Filter | None = None, *, merge: bool = False, **options: Any
) -> Received:
    """Our sender to our receiver. `merge`: whatever is there is not known."""
    sender, receiver = pair()
    with one_error():
        async with directory(source) as there, directory(target) as here, trio.open_nursery() as nursery:
            nursery.start_soon(send, sender, there, keep)
            received = await receive(receiver, here, {} if merge else present(here), **options)
    return received


async def told(target: Path, packets: Sequence[Packet]) -> Received:
    """What a receiver makes of `packets`, whatever it answers; raises what it raises."""
    sender, receiver = pair()
    with one_error():
        async with directory(target) as here, trio.open_nursery() as nursery:
            nursery.start_soon(_tell, sender, packets)
            nursery.start_soon(_listen, sender)
            received = await receive(receiver, here, present(here))
            nursery.cancel_scope.cancel()
    return received


async def _tell(end: End, packets: Sequence[Packet]) -> None:
    for packet in packets:
        await end.send(packet)
    await end.half_close()


async def _listen(end: End) -> None:
    while await end.receive() is not None:
        pass
