"""A build without a context: an empty directory stands in for it.

It is a layer that is never committed and belongs to this process's lease, so it goes when the build ends, or with the
next command if this one is killed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from buildengine.builder import BuildRequest
from cache.opened import Cache


@asynccontextmanager
async def with_directories(cache: Cache, request: BuildRequest) -> AsyncIterator[BuildRequest]:
    """The request with a directory for its context, for this block."""
    if "context" in request.directories or "context" in request.options:
        yield request
        return
    layer = await cache.layers.create((), kind="source.local", description="a build without a context")
    try:
        yield replace(request, directories={"context": layer.directory, **request.directories})
    finally:
        await layer.discard()
