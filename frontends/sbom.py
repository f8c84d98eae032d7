"""SBOMs: a scanner is a step of the build that reads a finished tree and writes what is in it.

    /run/src/core/sbom            the tree, read-only            BUILDKIT_SCAN_SOURCE
    /run/src/extras/sbom-NAME     the context, other stages      BUILDKIT_SCAN_SOURCE_EXTRAS, without the name
    /run/out/                     its in-toto statements         BUILDKIT_SCAN_DESTINATION

Facts: BuildKit frontend/attestations/sbom/sbom.go; docs/attestations/sbom-protocol.md there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

from buildengine.attestation import REASON, SBOM_CORE, SPDX, Claim, Kind
from buildengine.errors import SourceError, UserError
from buildengine.platform import Platform
from buildengine.values import dataclass
from frontends.attestations import Scanner
from frontends.gateway import Attestation, Gateway, NotAnImage, ResolvedImage
from llb.mounts import AnyMount, Bind, Tmpfs
from llb.ops import SourceOp
from llb.sources import image
from llb.state import State

_CORE = "sbom"
_SOURCES, _DESTINATION = "/run/src", "/run/out/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What is scanned: the result itself, and what it was made from. `ignore_cache`: scanned anew in any case."""

    core: State
    extras: Mapping[str, State] = field(default_factory=dict)
    ignore_cache: bool = False


Scan = Callable[[str, Targets, Platform], Attestation]
"""Scans of a result that is called so, for this platform. Nothing runs before somebody reads it."""


async def open_scanner(gateway: Gateway, scanner: Scanner, build_platform: Platform, *, mode: str = "default") -> Scan:
    """Raises SourceError when there is no such image, UserError when it has no command."""
    source = SourceOp(identifier=f"docker-image://{scanner.image}")
    shown = f"[internal] load metadata for {scanner.image}"
    found = await gateway.resolve_source(source, platform=None, mode=mode, name=shown)
    if not isinstance(found, ResolvedImage):
        raise NotAnImage(scanner.image, found.source)
    config = _config(scanner.image, found.config)
    command = [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]
    if not command:
        raise UserError(f"scanner {scanner.image} does not have cmd", hint="an SBOM scanner is an image with a command")

    def scan(name: str, targets: Targets, platform: Platform) -> Attestation:
        ran = image(scanner.image, resolve_mode=mode).run(
            command,
            mounts=_mounts(targets),
            env=_environment(config, scanner, targets),
            cwd=config.get("WorkingDir") or "/",
            platform=build_platform,
            name=f"[{name}] generating sbom using {scanner.image}",
            ignore_cache=targets.ignore_cache,
        )
        claim = Claim(
            kind=Kind.BUNDLE,
            predicate_type=SPDX,
            metadata={REASON: b"sbom", SBOM_CORE: _CORE.encode()},
        )
        return Attestation(claim=claim, definition=ran.mount(_DESTINATION).marshal(platform))

    return scan


def _mounts(targets: Targets) -> list[AnyMount]:
    mounts: list[AnyMount] = [
        Tmpfs(target="/tmp"),
        Bind(target=f"{_SOURCES}/core/{_CORE}", source=targets.core, readonly=True),
    ]
    for name, extra in sorted(targets.extras.items()):
        mounts.append(Bind(target=f"{_SOURCES}/extras/{_CORE}-{name}", source=extra, readonly=True))
    return [*mounts, Bind(target=_DESTINATION)]


def _environment(config: Mapping[str, Any], scanner: Scanner, targets: Targets) -> dict[str, str]:
    environment = dict(entry.partition("=")[::2] for entry in config.get("Env") or ())
    environment["BUILDKIT_SCAN_DESTINATION"] = _DESTINATION
    environment["BUILDKIT_SCAN_SOURCE"] = f"{_SOURCES}/core/{_CORE}"
    if targets.extras:
        environment["BUILDKIT_SCAN_SOURCE_EXTRAS"] = f"{_SOURCES}/extras"
    return environment | {f"BUILDKIT_SCAN_{name}": value for name, value in sorted(scanner.parameters.items())}


def _config(name: str, raw: bytes) -> dict[str, Any]:
    try:
        document = json.loads(raw)
        found = document.get("config") or {}
    except (ValueError, AttributeError) as error:
        raise SourceError(f"the image config of scanner {name} cannot be read: {error}") from error
    return dict(found)
