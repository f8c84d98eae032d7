"""A build of a definition made elsewhere: what an engine does with one that no frontend of ours would write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from buildengine.builder import BuildRequest, Export
from buildengine.daemon.engine import open_engine
from buildengine.daemon.local_session import DockerConfigCredentials, local_session
from buildengine.events import discard
from buildengine.platform import local
from frontends import catalog
from frontends.gateway import FrontendRequest, FrontendResult, Gateway, PlatformResult
from llb.definition import Definition
from tests.builds import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """A frontend whose result is this definition."""

    definition: Definition

    async def build(self, gateway: Gateway, request: FrontendRequest) -> FrontendResult:
        result = PlatformResult(platform=local(), definition=self.definition, config=b"{}")
        return FrontendResult(results=(result,))


async def solve(store: Store, definition: Definition, export: Export, directories: Mapping[str, Path]) -> None:
    """Build a definition with an engine of ours, from these local directories."""
    request = BuildRequest(ref="given", directories=directories, exports=(export,), platforms=(local(),))
    credentials = DockerConfigCredentials(Path("/nowhere"), {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "find", lambda _: _Given(definition=definition))
        async with open_engine(store.config) as engine:
            await engine.build(request, local_session(request, credentials=credentials, environment={}), discard)
