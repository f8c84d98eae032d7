"""`buildengine.builder.Builder` on a daemon elsewhere: what `pybuild --addr` uses. Each call is one asyncio run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import NoReturn, TypeVar

from buildengine.api import control_pb2 as pb
from buildengine.api import convert
from buildengine.builder import (
    BuildOutcome,
    BuildRequest,
    Damage,
    Images,
    PrunePolicy,
    PulledImage,
    PullRequest,
    RunnablePlatform,
    ServedRegistry,
    ServedRequest,
    UsageInfo,
)
from buildengine.client.address import Address
from buildengine.client.connect import connect
from buildengine.client.connection import Connection
from buildengine.client.running import run_to_end
from buildengine.config import Config
from buildengine.digest import Digest
from buildengine.errors import UserError
from buildengine.events import EventSink

_T = TypeVar("_T")
_CONTROL = "/moby.buildkit.v1.Control"


@contextmanager
def open_remote_builder(config: Config, address: Address) -> Iterator[RemoteBuilder]:
    """The builder on the daemon at `address`; of `config` it takes docker's directory and the environment."""
    yield RemoteBuilder(config, address)


class RemoteBuilder:
    """`buildengine.builder.Builder`, as far as BuildKit's API reaches."""

    def __init__(self, config: Config, address: Address) -> None:
        self._config = config
        self._address = address

    def build(
        self, request: BuildRequest, on_event: EventSink, on_tick: Callable[[], None] | None = None
    ) -> BuildOutcome:
        from buildengine.client.build import build

        config = self._config

        async def run(daemon: Connection) -> BuildOutcome:
            return await build(
                daemon, request, on_event, docker_config=config.docker_config, environment=config.environment
            )

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

    # --- what the API has no word for

    def push(
        self,
        reference: str,
        names: Sequence[str],
        on_event: EventSink,
        on_tick: Callable[[], None] | None = None,
    ) -> Sequence[str]:
        self._refuse("push images of its store", "push while building: pybuild build --push -t NAME")

    def pull(self, request: PullRequest, on_layer: Callable[[Digest, bool], object]) -> PulledImage:
        self._refuse("pull images into its store", "a build pulls what it needs; or log in there and run pybuild pull")

    def verify_store(self) -> Sequence[Damage]:
        self._refuse("verify its store", "run pybuild debug verify-store on its host")

    def platforms(self) -> Sequence[RunnablePlatform]:
        self._refuse("say how it runs platforms", "run pybuild debug platforms on its host")

    def serve_registry(
        self, registry: ServedRegistry, on_ready: Callable[[str], None], on_request: Callable[[ServedRequest], None]
    ) -> None:
        self._refuse("serve a registry", "run pybuild registry serve on its host")

    @property
    def images(self) -> Images:
        self._refuse("manage its images", "run pybuild image on its host")

    def _refuse(self, what: str, hint: str) -> NoReturn:
        raise UserError(f"a daemon cannot be asked to {what}: {self._address}", hint=f"{hint}, without --addr")

    def _connected(self, run: Callable[[Connection], Awaitable[_T]], on_tick: Callable[[], None] | None = None) -> _T:
        async def main() -> _T:
            async with connect(self._address) as daemon:
                return await run(daemon)

        return run_to_end(main, on_tick)
