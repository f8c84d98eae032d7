"""Between what a frontend here gives back and what one elsewhere does. Pure.

Ours has a definition for each platform; elsewhere there are references, and metadata under BuildKit's names.

Facts: BuildKit exporter/containerimage/exptypes (ParsePlatforms), frontend/dockerui/build.go.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from buildengine import platform as platforms
from buildengine.api.bridge import Attestation, Ref, Result
from buildengine.errors import UserError
from buildengine.platform import Platform
from buildengine.values import dataclass
from frontends import gateway
from frontends.gateway import FrontendResult, PlatformResult
from llb.definition import Definition

CONFIG = "containerimage.config"  # of a set with /KEY behind it, as the next
BASE_CONFIG = "containerimage.base.config"
PLATFORMS = "refs.platforms"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """One result of a set, as `refs.platforms` lists them."""

    key: str
    platform: Platform


def told(result: FrontendResult, refs: Sequence[Ref], attested: Mapping[str, tuple[Attestation, ...]]) -> Result:
    """A result of ours, with a reference for each platform in its order, and what is attested by platform."""
    several = result.multi_platform or len(result.results) > 1
    metadata = dict(result.metadata)
    for made in result.results:
        suffix = f"/{made.id}" if several else ""
        if made.config:
            metadata[CONFIG + suffix] = made.config
        if made.base_config:
            metadata[BASE_CONFIG + suffix] = made.base_config
    if _is_nothing(result):
        return Result(metadata=metadata)
    listed = [{"ID": made.id, "Platform": made.platform.to_json()} for made in result.results]
    if listed and PLATFORMS not in metadata:
        metadata[PLATFORMS] = json.dumps({"Platforms": listed}, separators=(",", ":")).encode()
    if several:
        by_key = {made.id: ref for made, ref in zip(result.results, refs, strict=True)}
        return Result(refs=by_key, metadata=metadata, attestations=attested)
    return Result(ref=refs[0] if refs else Ref(), metadata=metadata, attestations=attested)


def _is_nothing(result: FrontendResult) -> bool:
    """Whether it is an answer in metadata only, of a frontend elsewhere that was asked for no build."""
    return all(made.definition is None and not made.config for made in result.results)


def heard(result: Result, definitions: Mapping[str, Definition]) -> FrontendResult:
    """A result from elsewhere; `definitions` are those of its references by id. Raises UserError."""
    several = result.refs is not None
    members = _members(result)
    made = []
    for member in members:
        ref = result.refs.get(member.key) if result.refs is not None else result.ref
        if ref is None:
            raise UserError(f"failed to find ref for ID {member.key}")
        config, base = (_of(member, result, name) for name in (CONFIG, BASE_CONFIG))
        made.append(
            PlatformResult(
                platform=member.platform,
                key=member.key,
                definition=definitions.get(ref.id),
                config=config,
                base_config=base,
                attestations=tuple([_attested(each, definitions) for each in result.attestations.get(member.key, ())]),
            )
        )
    return FrontendResult(results=tuple(made), multi_platform=several, metadata=result.metadata)


def _attested(said: Attestation, definitions: Mapping[str, Definition]) -> gateway.Attestation:
    return gateway.Attestation(claim=said.claim, definition=definitions.get(said.ref.id) if said.ref else None)


def _of(member: _Member, result: Result, name: str) -> bytes:
    return result.metadata.get(f"{name}/{member.key}") or result.metadata.get(name) or b""


def refs_of(result: Result) -> Iterable[Ref]:
    """Those of what is attested too."""
    yield from (result.ref,) if result.refs is None else result.refs.values()
    yield from (said.ref for each in result.attestations.values() for said in each if said.ref is not None)


def _members(result: Result) -> Sequence[_Member]:
    listed = result.metadata.get(PLATFORMS)
    if listed is not None:
        members = _listed(listed)
        if result.refs is None and len(members) > 1:
            raise UserError("unable to export multiple platforms without map")
        return members
    if result.refs is not None:
        return [_Member(key=key, platform=_named(key)) for key in result.refs]
    platform = _configured(result.metadata.get(CONFIG, b""))
    return [_Member(key=str(platform), platform=platform)]


def _listed(text: bytes) -> Sequence[_Member]:
    """Facts: BuildKit exporter/containerimage/exptypes/parse.go (ParsePlatforms)."""
    try:
        listed = (json.loads(text or b"null") or {}).get("Platforms") or ()
        members = [_Member(key=each["ID"], platform=platforms.from_json(each["Platform"])) for each in listed]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"the frontend's list of platforms cannot be read: {error}") from error
    if not members:
        raise UserError("invalid empty platforms index for exporter")
    for member in members:
        if not member.key:
            raise UserError("invalid empty platform key for exporter")
        if not (member.platform.os and member.platform.architecture):
            raise UserError(f"invalid platform value {str(member.platform)!r} of {member.key} for exporter")
    return members


def _configured(config: bytes) -> Platform:
    """The platform of an image config; this machine's where it has none."""
    try:
        document = json.loads(config or b"{}")
        if document is None:
            raise UserError("invalid null image config for export")  # exporter/containerimage/writer.go
        found = platforms.from_json(document)
    except (ValueError, AttributeError) as error:
        raise UserError(f"the frontend's image config is not a JSON object: {error}") from error
    if bool(found.os) != bool(found.architecture):
        raise UserError("invalid image config: os and architecture must be specified together")
    return found if found.os else platforms.local()


def _named(key: str) -> Platform:
    """A set without a list of platforms: its keys name them, or are names of another kind."""
    try:
        return platforms.parse(key)
    except UserError:
        return platforms.local()
