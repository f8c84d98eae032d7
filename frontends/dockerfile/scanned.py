"""What an SBOM of a Dockerfile's target is made of: the target, and what ARGs ask to scan besides. Pure.

    ARG BUILDKIT_SBOM_SCAN_CONTEXT=true        the build context; true, or the names of stages for which
    ARG BUILDKIT_SBOM_SCAN_STAGE=true          this stage, if it is not the target; before the first FROM: all

Facts: BuildKit frontend/dockerfile/dockerfile2llb/convert.go (Dockerfile2LLB, isEnabledForStage).
"""

from __future__ import annotations

from frontends.dockerfile import notation
from frontends.dockerfile.convert.conversion import Converted
from frontends.dockerfile.convert.draft import Draft
from frontends.sbom import Targets

_CONTEXT, _STAGE = "BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"


def targets(converted: Converted) -> Targets:
    target = converted.target
    stages = [draft for draft in converted.drafts.values() if draft is not target and _asks(draft, _STAGE)]
    extras = {draft.stage.label or draft.stage.image: draft.state for draft in stages}
    if _asks(target, _CONTEXT):
        extras["context"] = target.shared.context
    ignore_cache = any(draft.stage.ignore_cache for draft in (target, *stages))
    return Targets(core=converted.state, extras=extras, ignore_cache=ignore_cache)


def _asks(draft: Draft, name: str) -> bool:
    """What the stage says, else what all are told."""
    text = draft.args.get(name) or draft.shared.global_args.get(name)
    if not text:
        return False
    try:
        return notation.boolean(text)
    except ValueError:
        return draft.stage.label in text.split(",")
