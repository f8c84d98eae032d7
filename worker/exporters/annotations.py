"""Annotations that an export is asked for: their four scopes, and which of them one platform gets. Pure.

    annotation[-SCOPE][[PLATFORM]].KEY    SCOPE: manifest (what none means), manifest-descriptor, index,
                                                 index-descriptor

Facts: BuildKit exporter/containerimage/annotations.go and exptypes/annotations.go. The index scopes are for all
platforms, whatever is written in brackets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from types import MappingProxyType

from buildengine import platform as platforms
from buildengine.builder import ANNOTATION_SCOPES
from buildengine.errors import UserError, meant
from buildengine.values import dataclass

_KEY = re.compile(r"annotation(?:-([a-z-]+))?(?:\[([A-Za-z0-9_./()-]+)\])?\.(\S+)")
_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotations:
    """`by_platform`: (scope, platform, annotations), where the platform "" is all of them."""

    by_platform: tuple[tuple[str, str, Mapping[str, str]], ...] = ()
    index: Mapping[str, str] = field(default_factory=lambda: _NONE)
    index_descriptor: Mapping[str, str] = field(default_factory=lambda: _NONE)

    def manifest(self, platform: str) -> Mapping[str, str]:
        return self._of("manifest", platform)

    def manifest_descriptor(self, platform: str) -> Mapping[str, str]:
        return self._of("manifest-descriptor", platform)

    @property
    def need_oci(self) -> bool:
        """Docker's documents have no place for these."""
        descriptors = any(scope == "manifest-descriptor" for scope, _, _ in self.by_platform)
        return bool(self.index or self.index_descriptor or descriptors)

    def merged(self, other: Annotations) -> Annotations:
        """These, and over them those of `other`."""
        return Annotations(
            by_platform=(*self.by_platform, *other.by_platform),
            index={**self.index, **other.index},
            index_descriptor={**self.index_descriptor, **other.index_descriptor},
        )

    def check_platforms(self, built: Iterable[str]) -> None:
        """Refuse those for a platform that is not `built`. Raises UserError."""
        known = sorted(built)
        for _, platform, _ in self.by_platform:
            if platform and platform not in known:
                raise UserError(
                    f"invalid annotation: no platform {platform} in the result", hint=f"built is {', '.join(known)}"
                )

    def check(self, built: Iterable[str], *, multi_platform: bool) -> None:
        """Refuse those that have no place in the result. Raises UserError. `built` are the platforms there are."""
        self.check_platforms(built)
        if (self.index or self.index_descriptor) and not multi_platform:
            raise UserError(
                "index annotations are not supported for the export of a single platform",
                hint="annotate the manifest, or build with --build-arg BUILDKIT_MULTI_PLATFORM=1",
            )

    def _of(self, wanted: str, platform: str) -> Mapping[str, str]:
        """Those for all platforms, and over them those for this one."""
        found: dict[str, str] = {}
        for name in dict.fromkeys(("", platform)):
            for scope, where, values in self.by_platform:
                if (scope, where) == (wanted, name):
                    found.update(values)
        return found


def parse(attrs: Mapping[str, str]) -> tuple[Annotations, dict[str, str]]:
    """The annotations among the attributes of an output, and the others. Raises UserError."""
    grouped: dict[tuple[str, str], dict[str, str]] = {}
    others: dict[str, str] = {}
    for name, value in attrs.items():
        match = _KEY.fullmatch(name)
        if match is None:
            others[name] = value
            continue
        scope = match[1] or "manifest"
        _check_scope(scope)
        platform = str(platforms.parse(match[2])) if match[2] and not scope.startswith("index") else ""
        grouped.setdefault((scope, platform), {})[match[3]] = value
    found = Annotations(
        by_platform=tuple((s, p, values) for (s, p), values in sorted(grouped.items()) if not s.startswith("index")),
        index=grouped.get(("index", ""), {}),
        index_descriptor=grouped.get(("index-descriptor", ""), {}),
    )
    return found, others


def _check_scope(scope: str) -> None:
    if scope not in ANNOTATION_SCOPES:
        close = meant(scope, ANNOTATION_SCOPES)
        hint = f"did you mean {close}?" if close else ", ".join(ANNOTATION_SCOPES)
        raise UserError(f"unknown annotation type {scope!r}", hint=hint)
