"""The sending end of fsutil's protocol: a directory is listed, and the files that are asked for follow.

The daemon exports a directory this way; `buildengine.client` sends a build context so, in asyncio. One task sends,
another one reads requests, so that neither side waits for the other. What is said is `fsoutlet`'s.
"""

from __future__ import annotations

from functools import partial

import trio

from buildengine.api.fsfiles import open_regular
from buildengine.api.fsoutlet import Outlet
from buildengine.api.fspackets_pb2 import Packet
from buildengine.api.fsreceive import Packets, say
from buildengine.api.fsutil import ProtocolError
from buildengine.api.fswalk import walk
from buildengine.errors import BuildError, ContextError
from buildengine.limits import DISK, offload
from cache.selection import Filter
from worker.layers.outcome import one_error


async def send(stream: Packets, root: int, keep: Filter | None = None) -> None:
    """Send what of the open directory `root` is kept, until the receiver has it all. Raises ContextError, RpcError."""
    sender = _Sender(stream, Outlet(walk(root, keep), partial(open_regular, root)))
    try:
        with one_error():
            await sender.run()
    except (BuildError, OSError) as error:
        failure = error if isinstance(error, BuildError) else ContextError(f"cannot read a file: {error.strerror}")
        await say(stream, failure.message)
        raise failure from error
    finally:
        sender.close()


class _Sender:
    def __init__(self, stream: Packets, outlet: Outlet) -> None:
        self._stream = stream
        self._outlet = outlet
        self._wake = trio.Event()

    def close(self) -> None:
        self._outlet.close()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_all)
            await self._read_requests()
            nursery.cancel_scope.cancel()  # nothing is left to be sent
        await self._stream.send(Packet(type=Packet.FIN))
        await self._stream.half_close()
        while await self._stream.receive() is not None:
            pass

    async def _read_requests(self) -> None:
        while not self._outlet.is_whole:
            packet = await self._stream.receive()
            if packet is None:
                raise ProtocolError("the receiver ended before it had everything")
            self._outlet.take(packet)
            self._wake.set()

    async def _send_all(self) -> None:
        while True:
            self._wake = trio.Event()
            packets = await offload(self._outlet.packets, limiter=DISK)
            if not packets:
                await self._wake.wait()
            for packet in packets:
                await self._stream.send(packet)
