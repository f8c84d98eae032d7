"""Is the result for the platforms that were asked for? A frontend may give what it likes; whoever asked is told. Pure.

Facts: BuildKit exporter/verifier/platforms.go (CheckInvalidPlatforms; its texts).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from buildengine.platform import Platform, normalize
from worker.exporters.result import BuildResult


def mismatch(asked: Sequence[Platform], result: BuildResult) -> str | None:
    """What is to be said about it; None when there is nothing."""
    wanted = sorted({str(normalize(platform)) for platform in asked})
    found = [normalize(image.platform) for image in result.images]
    if not result.multi_platform and not any(image.stack for image in result.images):
        return None  # no result but an answer, or the empty image
    if len(wanted) == len(found) == 1:
        versioned = found[0] if asked[0].os_version else replace(found[0], os_version="")
        if wanted == [str(versioned)]:
            return None
        return f'Requested platform "{wanted[0]}" does not match result platform "{found[0]}"'
    if not result.multi_platform and len(wanted) > 1:
        return "Multiple platforms requested but result is not multi-platform"
    if wanted == sorted(map(str, found)):
        return None
    given = ",".join(sorted(map(str, found)))
    return f"Requested platforms {','.join(wanted)} do not match result platforms {given}"
