"""Platforms as `os[(version)]/architecture[/variant]`, normalised and compared as containerd does.

Facts: containerd/platforms database.go and platforms.go (aliases, implied variants, spelling), compare.go (what
runs on what), platform_windows_compat.go (which Windows runs which).
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import Any

from buildengine.errors import UserError, meant
from buildengine.values import dataclass

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # where an image says none (not Windows)

_ARCHITECTURES = {
    "i386": "386", "x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "armel": "arm",
}  # fmt: skip
_VARIANTS = {"armhf": "v7", "armel": "v6", "i386": ""}  # what these names say, whatever variant stands beside them
_ARM64_VARIANTS = {"8": "", "v8": "", "v8.0": "", "9": "v9", "9.0": "v9", "v9.0": "v9"}
_ARM_VARIANTS = {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"}
_MACHINES = {  # what uname calls what Go calls otherwise
    "i486": "386", "i586": "386", "i686": "386", "loongarch64": "loong64",
    "armv5tel": "arm/v5", "armv6l": "arm/v6", "armv7l": "arm/v7", "armv8l": "arm/v8",
}  # fmt: skip
_COMPONENT = "^[A-Za-z0-9_.-]+$"
_FORMAT = re.compile(r"([A-Za-z0-9_.-]+)(?:\(([^()]*)\))?")
_GOARCH = (
    "386 amd64 amd64p32 arm armbe arm64 arm64be loong64 mips mipsle mips64 mips64le mips64p32 mips64p32le ppc"
    " ppc64 ppc64le riscv riscv64 s390 s390x sparc sparc64 wasm"
)
_GOOS = "aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd plan9 solaris windows zos"
_KNOWN_ARCHITECTURES, _KNOWN_SYSTEMS = frozenset(_GOARCH.split()), frozenset(_GOOS.split())
_FIRST_STABLE_WINDOWS = 20348  # Server 2022: from here on a host runs the images of the last LTSC release as well
_WINDOWS_LTSC = (20348, 26100)


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
    given, variant = platform.architecture.lower(), platform.variant.lower()
    arch, variant = _ARCHITECTURES.get(given, given), _VARIANTS.get(given, variant)
    if arch == "arm64":
        variant = _ARM64_VARIANTS.get(variant, variant)
    elif arch == "arm":
        variant = _ARM_VARIANTS.get(variant, variant)
    elif arch == "amd64" and variant == "v1":
        variant = ""
    name = {"macos": "darwin"}.get(platform.os.lower(), platform.os.lower())
    return replace(platform, os=name, architecture=arch, variant=variant)


def local() -> Platform:
    """The platform of this host."""
    machine = os.uname().machine
    architecture, _, variant = _MACHINES.get(machine, machine).partition("/")
    return normalize(Platform(os="linux", architecture=architecture, variant=variant))


def parse(text: str) -> Platform:
    """`linux/amd64`, `linux/arm/v7`, `windows(10.0.1)/amd64`, `arm64` or `linux`. Raises UserError."""
    parts = text.strip().split("/")
    match = _FORMAT.fullmatch(parts[0])
    wrong = next((part for part in parts[1:] if not re.fullmatch(_COMPONENT, part)), None)
    if match is None or len(parts) > 3 or wrong is not None:
        problem = f"invalid platform {text!r}"
        if match is not None and wrong is not None:  # as clients know it
            must = f'platform specifier component must match "{_COMPONENT}": invalid argument'
            problem = f'"{wrong}" is an invalid component of "{text}": {must}'
        raise UserError(problem, hint="a platform is os/architecture[/variant], e.g. linux/arm64")
    if len(parts) == 1:
        return _single(text, match[1], match[2] or "")
    variant = parts[2] if len(parts) == 3 else ""
    return normalize(Platform(os=match[1], os_version=match[2] or "", architecture=parts[1], variant=variant))


def _single(text: str, word: str, version: str) -> Platform:
    """`linux` or `arm64`: the host says the other half."""
    host = local()
    system = normalize(replace(host, os=word, os_version=version))
    if system.os in _KNOWN_SYSTEMS:
        return system
    found = normalize(Platform(os=host.os, architecture=word))
    if found.architecture in _KNOWN_ARCHITECTURES and not version:
        return found
    raise UserError(
        f"invalid platform {text!r}: no operating system and no architecture is called that",
        hint="a platform is os/architecture[/variant], e.g. linux/arm64",
    )


def check_known(platform: Platform) -> None:
    """Refuse a system or an architecture that nobody has heard of, mostly a slip of the finger. Raises UserError."""
    given = (platform.os, platform.architecture)
    if given[0] in _KNOWN_SYSTEMS and given[1] in _KNOWN_ARCHITECTURES:
        return
    turned = given[1] in _KNOWN_SYSTEMS and given[0] in _KNOWN_ARCHITECTURES
    os, architecture = given[::-1] if turned else given
    nearest = (_nearest(os, _KNOWN_SYSTEMS), _nearest(architecture, _KNOWN_ARCHITECTURES))
    raise UserError(
        f"unknown platform {platform}",
        hint=f"did you mean {'/'.join(nearest)}?" if all(nearest) else "e.g. linux/amd64, linux/arm64 or linux/arm/v7",
    )


def _nearest(word: str, known: frozenset[str]) -> str:
    """`word` if it is known, else what is spelt much like it, else ""."""
    return word if word in known else meant(word, known) or ""


def preference(wanted: Platform) -> tuple[Platform, ...]:
    """What can stand in for `wanted`, best first: the platform itself, then what it also runs.

    arm64 runs the older arm64 (v9.x has all of v8.(x+5)), then 32-bit arm from v8 down; amd64 the lower levels, then
    386. As `platforms.Only`, except that an arm64 variant nobody knows fits itself here and nothing there.
    """
    others: list[tuple[str, str]] = []
    level = _level(wanted.variant)
    if wanted.architecture == "arm":
        others = [("arm", f"v{n}") for n in range((level or 0) - 1, 4, -1)]
    elif wanted.architecture == "amd64":
        others = [("amd64", f"v{n}" if n > 1 else "") for n in range((level or 0) - 1, 0, -1)] + [("386", "")]
    elif wanted.architecture == "arm64":
        others = [("arm64", variant) for variant in _below_arm64(wanted.variant)]
        others += [("arm", f"v{n}") for n in (8, 7, 6, 5)]
    return (wanted, *(replace(wanted, architecture=name, variant=variant) for name, variant in others))


def _level(variant: str) -> int | None:
    """`v3` -> 3."""
    return int(variant[1:]) if re.fullmatch("v[0-9]{1,2}", variant) else None


def _below_arm64(variant: str) -> list[str]:
    """The variants of arm64 that one of them runs besides itself, as they are normalised."""
    match = re.fullmatch(r"v([89])(?:\.([0-9]))?", variant or "v8")
    if match is None:
        return []
    major, minor = int(match[1]), int(match[2] or 0)
    below = [f"v{major}.{n}" if n else f"v{major}" for n in range(minor - 1, -1, -1)]
    if major == 9:
        below += [f"v8.{n}" if n else "v8" for n in range(min(minor + 5, 9), -1, -1)]
    return ["" if name == "v8" else name for name in below]


def rank(wanted: Platform, offered: Platform) -> int | None:
    """How far down the order of `preference(wanted)` `offered` stands, 0 best; None when it cannot run there.

    An image that does not name its system is taken for one of Linux.
    """
    for position, candidate in enumerate(preference(wanted)):
        same = (candidate.os, candidate.architecture, candidate.variant)
        if same == (offered.os or "linux", offered.architecture, offered.variant):
            fits = wanted.os != "windows" or _windows_fits(wanted.os_version, offered.os_version)
            return position if fits else None
    return None


def _windows_fits(host: str, image: str) -> bool:
    """Whether a Windows of version `host` runs an image of version `image` (`10.0.<build>[.<revision>]`)."""
    wanted, offered = _windows_version(host), _windows_version(image)
    if wanted is None or not image:
        return True
    if offered is None or wanted[:2] != offered[:2]:
        return False
    build = wanted[2]
    if build < _FIRST_STABLE_WINDOWS:
        return build == offered[2]
    oldest = max((release for release in _WINDOWS_LTSC if release < build), default=_FIRST_STABLE_WINDOWS)
    return oldest <= offered[2] <= build


def _windows_version(text: str) -> tuple[int, int, int] | None:
    match = re.match(r"(\d{1,3})\.(\d{1,3})\.(\d{1,5})(?:\.|$)", text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None
