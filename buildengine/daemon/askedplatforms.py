"""Whether a frontend has built for the platforms that it was asked for. Pure.

Facts: BuildKit exporter/verifier/platforms.go (CheckInvalidPlatforms), and its texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from buildengine.platform import Platform
from frontends.gateway import FrontendResult


def mismatch(asked: Sequence[Platform], result: FrontendResult) -> str | None:
    """What to warn of; None where all is well, or where nothing was built."""
    made = [each.platform for each in result.results]
    if all(each.definition is None and not each.config for each in result.results):
        return None
    if len(asked) == len(made) == 1:
        found = made[0] if asked[0].os_version else replace(made[0], os_version="")
        if found == asked[0]:
            return None
        return f'Requested platform "{asked[0]}" does not match result platform "{made[0]}"'
    if len(asked) > 1 and not (result.multi_platform or len(made) > 1):
        return "Multiple platforms requested but result is not multi-platform"
    if {*asked} == {*made}:
        return None
    return f"Requested platforms {_listed(asked)} do not match result platforms {_listed(made)}"


def _listed(platforms: Iterable[Platform]) -> str:
    return ",".join(sorted(map(str, platforms)))
