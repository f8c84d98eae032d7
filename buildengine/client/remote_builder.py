"""`buildengine.builder.Builder` on a daemon elsewhere: what `pybuild --addr` uses. Each call is one asyncio run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, TypeVar

from buildengine.api import control_pb2 as pb
from buildengine.api import convert
from buildengine.builder import (
    BuildOutcome,
    BuildRequest,
    PrunePolicy,
    PulledImage,
    PullRequest,
    RunnablePlatform,
    StoreCheck,
    UsageInfo,
)
from buildengine.client.address import Address
from buildengine.client.auth import Logins
from buildengine.client.connect import connect
from buildengine.client.connection import Connection
from buildengine.client.running import run_to_end
from buildengine.config import Config
from buildengine.digest import Digest
from buildengine.events import EventSink

if TYPE_CHECKING:
    from buildengine.client.images import DaemonImages
    from buildengine.imagecalls import BlockingImages

_T = TypeVar("_T")
_CONTROL = "/moby.buildkit.v1.Control"


@contextmanager
def open_remote_builder(config: Config, address: Address) -> Iterator[RemoteBuilder]:
    """The builder on the daemon at `address`; of `config` it takes the environment and what is about registries."""
    yield RemoteBuilder(config, address)


class RemoteBuilder:
    """`buildengine.builder.Builder`: builds and cache in BuildKit's API, the rest in pybuildd's own."""

    def __init__(self, config: Config, address: Address) -> None:
        self._config = config
        self._address = address

    def build(
        self, request: BuildRequest, on_event: EventSink, on_tick: Callable[[], None] | None = None
    ) -> BuildOutcome:
        from buildengine.client.build import build

        config = self._config

        async def run(daemon: Connection) -> BuildOutcome:
            return await build(daemon, request, on_event, logins=_logins(config), environment=config.environment)

        return self._connected(run, on_tick)

    def disk_usage(self, filters: Sequence[str] = ()) -> Sequence[UsageInfo]:
        async def run(daemon: Connection) -> Sequence[UsageInfo]:
            request = pb.DiskUsageRequest(filter=filters)
            answer = await daemon.unary(f"{_CONTROL}/DiskUsage", request, pb.DiskUsageResponse)
            return [convert.usage_info(record) for record in answer.record]

        return self._connected(run)

    def prune(self, policy: PrunePolicy, on_record: Callable[[UsageInfo], None]) -> None:
        async def run(daemon: Connection) -> None:
            request = convert.prune_request(policy)
            async with aclosing(daemon.server_stream(f"{_CONTROL}/Prune", request, pb.UsageRecord)) as records:
                async for record in records:
                    on_record(convert.usage_info(record))

        self._connected(run)

    # --- what only pybuildd knows

    def push(
        self,
        reference: str,
        names: Sequence[str],
        on_event: EventSink,
        on_tick: Callable[[], None] | None = None,
    ) -> Sequence[str]:
        return self._with_images(lambda images: images.push(reference, names, on_event), on_tick)

    def pull(self, request: PullRequest, on_layer: Callable[[Digest, bool], object]) -> PulledImage:
        return self._with_images(lambda images: images.pull(request, on_layer))

    @property
    def images(self) -> BlockingImages:
        from buildengine.imagecalls import BlockingImages

        return BlockingImages(self._with_images)

    def verify_store(self) -> StoreCheck:
        from buildengine.client.debug import verify_store

        return self._connected(verify_store)

    def platforms(self) -> Sequence[RunnablePlatform]:
        from buildengine.client.debug import platforms

        return self._connected(platforms)

    def _with_images(
        self, fn: Callable[[DaemonImages], Awaitable[_T]], on_tick: Callable[[], None] | None = None
    ) -> _T:
        from buildengine.client.images import DaemonImages

        config = self._config

        async def run(daemon: Connection) -> _T:
            return await fn(DaemonImages(daemon, _logins(config)))

        return self._connected(run, on_tick)

    def _connected(self, run: Callable[[Connection], Awaitable[_T]], on_tick: Callable[[], None] | None = None) -> _T:
        async def main() -> _T:
            async with connect(self._address) as daemon:
                return await run(daemon)

        return run_to_end(main, on_tick)


def _logins(config: Config) -> Logins:
    return Logins(directory=config.docker_config, environment=config.environment, registries=config.registries)
