"""Platforms as `os[(version)]/architecture[/variant]`, normalised and compared as containerd does.

Facts: containerd/platforms database.go and compare.go (aliases, implied variants, what runs on what).
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import Any

from buildengine.errors import UserError
from buildengine.values import dataclass

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # where an image says none (not Windows)

_ARCHITECTURES = {
    "i386": ("386", ""), "x86_64": ("amd64", ""), "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""), "armhf": ("arm", "v7"), "armel": ("arm", "v6"),
}  # fmt: skip
_FORMAT = re.compile(r"([A-Za-z0-9_.-]+)(?:\(([^()]*)\))?")
_KNOWN_ARCHITECTURES = frozenset(
    "386,amd64,arm,arm64,loong64,mips,mipsle,mips64,mips64le,ppc64,ppc64le,riscv64,s390x,wasm".split(",")  # noqa: SIM905
)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Platform:
    """Where a program runs. Always normalised: build it with `parse`, `from_json` or `local`."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    def __str__(self) -> str:
        version = f"({self.os_version})" if self.os_version else ""
        return "/".join(p for p in (self.os + version, self.architecture, self.variant) if p)

    def to_json(self) -> dict[str, Any]:
        """The `platform` object of an OCI descriptor."""
        doc: dict[str, Any] = {"architecture": self.architecture, "os": self.os}
        if self.os_version:
            doc["os.version"] = self.os_version
        if self.os_features:
            doc["os.features"] = list(self.os_features)
        if self.variant:
            doc["variant"] = self.variant
        return doc


def from_json(doc: dict[str, Any]) -> Platform:
    """A platform from the `platform` object of a descriptor or from an image config."""
    return normalize(
        Platform(
            os=str(doc.get("os") or ""),
            architecture=str(doc.get("architecture") or ""),
            variant=str(doc.get("variant") or ""),
            os_version=str(doc.get("os.version") or ""),
            os_features=tuple(doc.get("os.features") or ()),
        )
    )


def normalize(platform: Platform) -> Platform:
    """One spelling for each platform: aliases resolved, implied variants dropped or filled in."""
    arch, variant = platform.architecture.lower(), platform.variant.lower()
    alias = _ARCHITECTURES.get(arch)
    if alias is not None:
        arch, variant = alias[0], alias[1] or variant
    if arch == "arm64" and variant in ("8", "v8"):
        variant = ""
    elif arch == "arm":
        variant = {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"}.get(variant, variant)
    elif arch == "amd64" and variant == "v1":
        variant = ""
    name = {"macos": "darwin"}.get(platform.os.lower(), platform.os.lower())
    return replace(platform, os=name, architecture=arch, variant=variant)


def local() -> Platform:
    """The platform of this host."""
    return normalize(Platform(os="linux", architecture=os.uname().machine))


def parse(text: str) -> Platform:
    """`linux/amd64`, `linux/arm/v7`, `windows(10.0.1)/amd64`, `arm64` or `linux`. Raises UserError."""
    parts = text.strip().split("/")
    match = _FORMAT.fullmatch(parts[0])
    if match is None or len(parts) > 3 or not all(parts) or not all(re.fullmatch(r"[\w.-]+", p) for p in parts[1:]):
        raise UserError(f"invalid platform {text!r}", hint="a platform is os/architecture[/variant], e.g. linux/arm64")
    host = local()
    if len(parts) == 1:
        single = normalize(Platform(os=host.os, architecture=parts[0]))
        if single.architecture in _KNOWN_ARCHITECTURES:
            return single
        return normalize(replace(host, os=match[1], os_version=match[2] or ""))
    variant = parts[2] if len(parts) == 3 else ""
    return normalize(Platform(os=match[1], os_version=match[2] or "", architecture=parts[1], variant=variant))


def preference(wanted: Platform) -> tuple[Platform, ...]:
    """What can stand in for `wanted`, best first: the platform itself, then what it also runs."""
    order = [wanted]
    level = wanted.variant[1:] if re.fullmatch("v[0-9]{1,2}", wanted.variant) else ""
    if wanted.architecture == "arm" and level:
        order += [replace(wanted, variant=f"v{n}") for n in range(int(level) - 1, 4, -1)]
    elif wanted.architecture == "amd64":
        if level:
            order += [replace(wanted, variant=f"v{n}" if n > 1 else "") for n in range(int(level) - 1, 0, -1)]
        order.append(replace(wanted, architecture="386", variant=""))
    elif wanted.architecture == "arm64":
        order += [replace(wanted, architecture="arm", variant=f"v{n}") for n in (8, 7, 6, 5)]
    return tuple(order)


def rank(wanted: Platform, offered: Platform) -> int | None:
    """How far down the order of `preference(wanted)` `offered` stands, 0 best; None when it cannot run there."""
    for position, candidate in enumerate(preference(wanted)):
        same = (candidate.os, candidate.architecture, candidate.variant)
        if same == (offered.os, offered.architecture, offered.variant):
            if wanted.os == "windows" and wanted.os_version and offered.os_version:
                build = wanted.os_version.split(".")[:3]
                return position if offered.os_version.split(".")[:3] == build else None
            return position
    return None
