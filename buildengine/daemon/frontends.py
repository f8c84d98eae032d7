"""Builds that no build file describes: a definition as the client sent it, and a client that is the frontend itself.

Both are `frontends.gateway.Frontend`, so the engine treats them as any other.
"""

from __future__ import annotations

from buildengine.api.bridges import Bridges
from buildengine.daemon.bridge import Bridge
from buildengine.values import dataclass
from frontends.gateway import FrontendRequest, FrontendResult, Gateway, PlatformResult
from llb.definition import Definition


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionFrontend:
    """Gives the definition back: LLB on `buildctl build`'s standard input. `config` b"" is the usual image config."""

    definition: Definition
    config: bytes = b""

    async def build(self, gateway: Gateway, request: FrontendRequest) -> FrontendResult:
        platform = request.platforms[0]
        result = PlatformResult(platform=platform, definition=self.definition, config=self.config)
        return FrontendResult(results=(result,))


class ClientFrontend:
    """Waits for what the client of the build `ref` returns; its calls of the gateway API find the build's bridge.

    A build that begins anew, because its context has changed, solves the same result again.
    """

    def __init__(self, bridges: Bridges[Bridge], ref: str) -> None:
        self._bridges = bridges
        self._ref = ref
        self._returned: FrontendResult | None = None

    async def build(self, gateway: Gateway, request: FrontendRequest) -> FrontendResult:
        if self._returned is None:
            bridge = Bridge(gateway, request)
            try:
                with self._bridges.opened(self._ref, bridge):
                    await bridge.last_word()
                    self._returned = bridge.result()
            finally:
                await bridge.close()
        return self._returned
