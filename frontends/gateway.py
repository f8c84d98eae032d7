"""What a frontend may ask of the engine, and what it gives back. Frontends see `llb` and this file only.

A frontend turns a build file into LLB. It runs once per platform in the engine (or in a container, later)
and talks to the engine through `Gateway`: read files of a solved definition, resolve an image's config, warn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Protocol

from buildengine.digest import Digest
from buildengine.errors import Location
from buildengine.platform import Platform
from buildengine.values import dataclass
from llb.definition import Definition


class Reference(Protocol):
    """A definition that the engine has accepted; files can be read from it, which solves it."""

    async def read_file(self, path: str, *, limit: int = 16 << 20) -> bytes:
        """The whole regular file. Raises SourceError when it is missing, UserError when longer than `limit`."""
        ...

    async def read_dir(self, path: str, *, include: str = "") -> Sequence[str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedImage:
    """An image reference, resolved once for the whole build. `config` is the raw image config."""

    reference: str
    digest: Digest
    config: bytes


class Gateway(Protocol):
    async def solve(self, definition: Definition) -> Reference: ...

    async def resolve_image(
        self, reference: str, *, platform: Platform, mode: str = "default", name: str = ""
    ) -> ResolvedImage:
        """Raises SourceError. `mode`: `default`, `pull` (ask the registry) or `local` (store only).

        `name` is what progress calls it.
        """
        ...

    def warn(
        self, message: str, *, detail: Sequence[str] = (), url: str = "", location: Location | None = None
    ) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontendRequest:
    """`options` are BuildKit's frontend attributes: `filename`, `target`, `build-arg:X`, `label:X`, `no-cache`,
    `context`, `add-hosts`, `force-network-mode`, `shm-size`, `ulimit`, `image-resolve-mode`, ...

    `platforms` are the targets (one result each); `build_platform` is where RUN steps run natively.
    """

    options: Mapping[str, str]
    platforms: tuple[Platform, ...]
    build_platform: Platform
    inputs: Mapping[str, Definition] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformResult:
    """`definition` None is the empty image; `config` is the image config JSON (without rootfs).

    `platform` is what was asked for; the descriptor of the image may say more, if the config does. `base_config` is
    the config of the image that it is based on, b"" where there is none or nobody said.
    """

    platform: Platform
    definition: Definition | None
    config: bytes
    base_config: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontendResult:
    """`multi_platform`: a set of images by platform, though there may be one only."""

    results: tuple[PlatformResult, ...]
    multi_platform: bool = False


class Frontend(Protocol):
    async def build(self, gateway: Gateway, request: FrontendRequest) -> FrontendResult: ...
