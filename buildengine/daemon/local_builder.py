"""The engine inside the command: `buildengine.builder.Builder` without a daemon.

Each call is one trio run: it opens what it needs and closes it again. The mount namespace is left once, before
anything else exists, so that whatever is killed, no mount stays on the host.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from buildengine.builder import (
    DOCKERFILE,
    BuildOutcome,
    BuildRequest,
    PrunePolicy,
    PulledImage,
    PullRequest,
    RunnablePlatform,
    ServedRegistry,
    ServedRequest,
    StoreCheck,
    UsageInfo,
    with_upload,
)
from buildengine.config import Config
from buildengine.daemon.local_session import DockerConfigCredentials, local_session
from buildengine.daemon.running import run_to_end
from buildengine.digest import Digest
from buildengine.errors import HostError
from buildengine.events import EventSink
from buildengine.limits import DISK, offload
from cache.opened import Cache, open_cache
from worker.runtime import descriptors
from worker.runtime.isolate import private_mounts

if TYPE_CHECKING:
    from buildengine.daemon.image_store import StoreImages
    from buildengine.imagecalls import BlockingImages
    from worker.runtime.runtime import Kind, Runtime

_T = TypeVar("_T")


@contextmanager
def open_local_builder(config: Config) -> Iterator[LocalBuilder]:
    """The builder on the state directory of `config`. Raises HostError without root."""
    if os.geteuid() != 0:
        raise HostError("pybuild needs root to run build steps", hint="run it with sudo, or in a container as root")
    private_mounts()
    descriptors.take_all()
    yield LocalBuilder(config)


class LocalBuilder:
    """`buildengine.builder.Builder` in this process."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def build(
        self, request: BuildRequest, on_event: EventSink, on_tick: Callable[[], None] | None = None
    ) -> BuildOutcome:
        return run_to_end(partial(self._build, request, on_event), on_tick)

    async def _build(self, request: BuildRequest, on_event: EventSink) -> BuildOutcome:
        async with self._runtime_of(request) as runtime:
            from buildengine.daemon.engine import open_engine  # takes as long as a runtime needs to get ready
            from buildengine.daemon.given_context import with_directories

            given = with_upload(request)
            opened = open_engine(self._config, runtime)
            async with opened as engine, with_directories(engine.cache, given) as whole:
                session = local_session(whole, credentials=self._credentials(), environment=self._config.environment)
                return await engine.build(whole, session, on_event)

    def _runtime_of(self, request: BuildRequest) -> AbstractAsyncContextManager[Runtime | None]:
        """All frontends but one run as steps, whatever is cached: what runs them is started first of all."""
        if request.frontend == DOCKERFILE:
            return nullcontext()
        from worker.runtime.runtime import open_runtime

        return open_runtime(cast("Kind", self._config.worker.runtime))

    def push(
        self,
        reference: str,
        names: Sequence[str],
        on_event: EventSink,
        on_tick: Callable[[], None] | None = None,
    ) -> Sequence[str]:
        async def run(images: StoreImages) -> Sequence[str]:
            return await images.push(reference, names, self._credentials(), on_event)

        return self._with_images(run, on_tick)

    def pull(self, request: PullRequest, on_layer: Callable[[Digest, bool], object]) -> PulledImage:
        async def run(images: StoreImages) -> PulledImage:
            return await images.pull(request, self._credentials(), on_layer)

        return self._with_images(run)

    def disk_usage(self, filters: Sequence[str] = ()) -> Sequence[UsageInfo]:
        from cache import usage

        async def run(cache: Cache) -> Sequence[UsageInfo]:
            return await offload(usage.disk_usage, cache, filters, limiter=DISK)

        return self._with_cache(run)

    def prune(self, policy: PrunePolicy, on_record: Callable[[UsageInfo], None]) -> None:
        from cache import prune

        async def run(cache: Cache) -> None:
            await prune.prune(cache, policy, on_record)

        self._with_cache(run)

    def verify_store(self) -> StoreCheck:
        from cache import verify

        async def run(cache: Cache) -> StoreCheck:
            damages = await offload(verify.verify, cache, limiter=DISK)
            return StoreCheck(root=str(self._config.root), damages=damages)

        return self._with_cache(run)

    def platforms(self) -> Sequence[RunnablePlatform]:
        from worker.runtime import runnable

        return runnable.table(directory=self._config.worker.emulators, runtime=self._config.worker.runtime)

    def serve_registry(
        self, registry: ServedRegistry, on_ready: Callable[[str], None], on_request: Callable[[ServedRequest], None]
    ) -> None:
        from buildengine.daemon.registry_server import serve_registry

        async def run(cache: Cache) -> None:
            await serve_registry(cache, registry, on_ready, on_request)

        self._with_cache(run)

    @property
    def images(self) -> BlockingImages:
        from buildengine.imagecalls import BlockingImages

        return BlockingImages(self._with_images)

    def _credentials(self) -> DockerConfigCredentials:
        return DockerConfigCredentials(self._config.docker_config / "config.json", self._config.environment)

    def _with_images(self, fn: Callable[[StoreImages], Awaitable[_T]], on_tick: Callable[[], None] | None = None) -> _T:
        async def run(cache: Cache) -> _T:
            from buildengine.daemon.image_store import StoreImages

            return await fn(StoreImages(cache, self._config))

        return self._with_cache(run, on_tick)

    def _with_cache(self, fn: Callable[[Cache], Awaitable[_T]], on_tick: Callable[[], None] | None = None) -> _T:
        async def run() -> _T:
            async with open_cache(self._config.root, snapshotter=self._config.worker.snapshotter) as cache:
                return await fn(cache)

        return run_to_end(run, on_tick)
