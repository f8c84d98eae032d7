"""The caches of elsewhere that one build reads from and writes to: which there are, and how their steps are shown.

Imports begin as soon as somebody names them and go on beside the build; whoever looks something up waits for them. One
that fails is a failed step and a cache with nothing in it: never a failed build.

Facts: BuildKit solver/llbsolver/bridge.go (loadResult, cmKey), control/control.go (findDuplicateCacheOptions).
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from buildengine.builder import CacheEntry
from buildengine.daemon.steps import step
from buildengine.digest import Digest
from buildengine.errors import BuildError, UserError
from buildengine.events import EventSink
from buildengine.reference import parse
from solver.job import Job
from solver.reporter import Reporter
from worker.context import BuildContext
from worker.exporters.options import flag
from worker.layers.outcome import one_error

if TYPE_CHECKING:  # few builds have any
    from worker.remotecache.imported import ImportedCache, KeyIndex

_EXPORTERS = frozenset({"inline"})


def check_exports(entries: Sequence[CacheEntry]) -> None:
    """Raises UserError for what cannot be written, and for the same one twice."""
    told = [_id(entry) for entry in entries if entry.type != "inline"]
    twice = sorted({entry.type for entry in entries if entry.type != "inline" and told.count(_id(entry)) > 1})
    if twice:
        raise UserError(f"duplicate cache exports [{' '.join(twice)}]")
    for entry in entries:
        if entry.type not in _EXPORTERS:
            raise UserError(f'unknown cache exporter: "{entry.type}"', hint="there is type=inline")


@asynccontextmanager
async def open_imports(context: BuildContext, job: Job, on_event: EventSink) -> AsyncIterator[CacheImports]:
    """The imports of a build. What is not through when the block ends, nobody needs any more."""
    with one_error():
        async with trio.open_nursery() as nursery:
            yield CacheImports(context, job, on_event, nursery)
            nursery.cancel_scope.cancel()


class CacheImports:
    """Made by `open_imports`."""

    def __init__(self, context: BuildContext, job: Job, on_event: EventSink, nursery: trio.Nursery) -> None:
        self._context = context
        self._job = job
        self._on_event = on_event
        self._nursery = nursery
        self._known: set[str] = set()

    def add(self, entries: Iterable[CacheEntry]) -> None:
        """What is solved from now on is looked for in these as well. One that is known already is not read again."""
        for entry in entries:
            id = _id(entry)
            if id not in self._known:
                from worker.remotecache.imported import ImportedCache

                self._known.add(id)
                cache = ImportedCache(self._context.cache.layers)
                self._job.sources.append(cache)
                self._nursery.start_soon(self._import, entry, id, cache)

    async def _import(self, entry: CacheEntry, id: str, cache: ImportedCache) -> None:
        from worker.remotecache.imported import KeyIndex

        index = KeyIndex()
        try:
            with step(self._on_event, f"importing cache manifest from {id}") as reporter:
                index = await self._read(entry, reporter)
        except BuildError:
            pass  # the step has said it
        finally:
            cache.fill(index)

    async def _read(self, entry: CacheEntry, reporter: Reporter) -> KeyIndex:
        from worker.remotecache import registry

        if entry.type != "registry":
            raise UserError(f"unknown cache importer: {entry.type}", hint="there is type=registry")
        if not entry.attrs.get("ref"):
            raise UserError("failed to configure registry cache importer: missing ref")
        reference = parse(entry.attrs["ref"])
        if flag(entry.attrs, "registry.insecure", False):
            await self._context.images.allow_insecure(reference.domain)
        tree, index = await registry.read(self._context.images, reference)
        now = time.time()
        reporter.status(f"inferred cache manifest type: {tree.documents[0].media_type}", started=now, completed=now)
        return index


def _id(entry: CacheEntry) -> str:
    """What a cache is called in progress, and by which two are the same."""
    if entry.type == "registry" and entry.attrs.get("ref"):
        return entry.attrs["ref"]
    told = json.dumps([entry.type, sorted(entry.attrs.items())])
    return f"{entry.type}:{int(Digest.sha256(told.encode()).hex[:16], 16)}"
