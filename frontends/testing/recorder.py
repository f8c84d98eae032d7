"""What a frontend has asked its gateway, in the order in which it did. Around the fake, or around an engine's.

recorder = Recorder(gateway)
await run(build, recorder, request)
assert recorder.asked == ["read_file app.yaml", "resolve_image docker.io/library/nginx:latest for linux/amd64"]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from buildengine.builder import CacheEntry
from buildengine.events import WarningEvent
from buildengine.platform import Platform
from buildengine.sourcepolicy import Policy
from frontends.gateway import (
    USUAL_DETAILS,
    Details,
    FileInfo,
    FrontendResult,
    Gateway,
    Reference,
    ResolvedImage,
    ResolvedSource,
)
from llb.definition import Definition
from llb.ops import SourceOp

_NO_INPUTS: Mapping[str, Definition] = MappingProxyType({})


class Recorder:
    """A gateway that passes on what it is asked, and keeps a line of it in `asked`."""

    def __init__(self, gateway: Gateway) -> None:
        self.asked: list[str] = []
        self._gateway = gateway

    async def solve(self, definition: Definition, policies: Sequence[Policy] = ()) -> Reference:
        return RecordedReference(reference=await self._gateway.solve(definition, policies), asked=self.asked)

    async def resolve_image(
        self, reference: str, *, platform: Platform, mode: str = "default", name: str = ""
    ) -> ResolvedImage:
        self.asked.append(f"resolve_image {reference} for {platform}")
        return await self._gateway.resolve_image(reference, platform=platform, mode=mode, name=name)

    async def resolve_source(
        self,
        source: SourceOp,
        *,
        platform: Platform | None,
        mode: str = "default",
        name: str = "",
        policies: Sequence[Policy] = (),
        details: Details = USUAL_DETAILS,
    ) -> ResolvedSource:
        self.asked.append(f"resolve_source {source.identifier}")
        return await self._gateway.resolve_source(
            source, platform=platform, mode=mode, name=name, policies=policies, details=details
        )

    async def run_frontend(
        self, name: str, options: Mapping[str, str], inputs: Mapping[str, Definition] = _NO_INPUTS
    ) -> FrontendResult:
        self.asked.append(f"run_frontend {name} " + " ".join(f"{key}={value}" for key, value in options.items()))
        return await self._gateway.run_frontend(name, options, inputs)

    def import_caches(self, caches: Sequence[CacheEntry]) -> None:
        self.asked.append("import_caches")
        self._gateway.import_caches(caches)

    def warn(self, warning: WarningEvent) -> None:
        self.asked.append(f"warn {warning.message}")
        self._gateway.warn(warning)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedReference:
    """Only what is looked at is told: nothing is solved before."""

    reference: Reference
    asked: list[str]

    @property
    def definition(self) -> Definition:
        return self.reference.definition

    async def evaluate(self) -> None:
        self.asked.append("evaluate")
        await self.reference.evaluate()

    async def read_file(self, path: str, *, limit: int = 16 << 20, offset: int = 0, length: int | None = None) -> bytes:
        self.asked.append(f"read_file {path}")
        return await self.reference.read_file(path, limit=limit, offset=offset, length=length)

    async def read_dir(self, path: str, *, include: str = "") -> Sequence[FileInfo]:
        self.asked.append(f"read_dir {path}")
        return await self.reference.read_dir(path, include=include)

    async def stat_file(self, path: str) -> FileInfo:
        self.asked.append(f"stat_file {path}")
        return await self.reference.stat_file(path)
