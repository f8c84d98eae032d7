"""Builds of which a client wants to hear why their steps ran, by ref: asked for before the build begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

import trio

from buildengine.events import Event, EventSink, ExplainEvent


class Watched:
    def __init__(self) -> None:
        self._channels: dict[str, trio.MemorySendChannel[ExplainEvent]] = {}

    @contextmanager
    def watching(self, ref: str) -> Iterator[trio.MemoryReceiveChannel[ExplainEvent]]:
        """What the build `ref` explains, until it ends. The last one to ask for a ref hears it."""
        sender, receiver = trio.open_memory_channel[ExplainEvent](inf)
        self._channels[ref] = sender
        try:
            yield receiver
        finally:
            receiver.close()
            if self._channels.get(ref) is sender:
                del self._channels[ref]

    def __contains__(self, ref: str) -> bool:
        return ref in self._channels

    def sink(self, ref: str, others: EventSink) -> EventSink:
        """A sink that gives explanations to whoever watches, and everything else to `others`."""

        def tell(event: Event) -> None:
            if not isinstance(event, ExplainEvent):
                others(event)
            elif (sender := self._channels.get(ref)) is not None:
                try:
                    sender.send_nowait(event)
                except trio.BrokenResourceError:
                    pass  # whoever asked has gone

        return tell

    def end(self, ref: str) -> None:
        """The build has ended."""
        sender = self._channels.pop(ref, None)
        if sender is not None:
            sender.close()
