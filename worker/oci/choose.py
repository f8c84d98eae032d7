"""Which manifest below an index is for a platform."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from buildengine.platform import Platform, rank
from buildengine.values import dataclass
from worker.oci.document import InvalidImage
from worker.oci.types import Descriptor, ImageConfig, Index, Manifest

_MAX_UNLABELLED = 8
MAX_DEPTH = 3

ReadDocument = Callable[[Descriptor], Awaitable[Manifest | Index]]
ReadConfig = Callable[[Manifest], Awaitable[ImageConfig]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A manifest with its config; `indexes` lead there, more than one where they are nested."""

    indexes: tuple[Index, ...] = ()
    manifest: Manifest
    config: ImageConfig


def candidates(index: Index, platform: Platform) -> tuple[Descriptor, ...]:
    """The entries of an index worth opening for `platform`: the best fit, else those that do not say.

    Attestations and other artifacts call themselves `unknown/unknown` and fit nothing.
    """
    ranked = [
        (position, order, entry)
        for order, entry in enumerate(index.manifests)
        if entry.platform is not None and (position := rank(platform, entry.platform)) is not None
    ]
    if ranked:
        return (min(ranked, key=lambda item: item[:2])[2],)
    unlabelled = (entry for entry in index.manifests if entry.platform is None)
    return tuple(entry for _, entry in zip(range(_MAX_UNLABELLED), unlabelled, strict=False))


async def choose(
    root: Manifest | Index,
    platform: Platform,
    *,
    document: ReadDocument,
    config: ReadConfig,
    what: str,
    depth: int = 0,
) -> Chosen | None:
    """The manifest at or below `root` that fits `platform` best; a `root` that is one is taken whatever it is for.

    `document` and `config` read what is needed on the way. Raises InvalidImage, and what they raise.
    """
    if isinstance(root, Manifest):
        return Chosen(manifest=root, config=await config(root))
    if depth >= MAX_DEPTH:
        raise nested_too_deeply(what)
    for descriptor in candidates(root, platform):
        try:
            child = await document(descriptor)
            chosen = await choose(child, platform, document=document, config=config, what=what, depth=depth + 1)
        except InvalidImage:
            if descriptor.platform is not None:
                raise
            continue  # what does not say its platform may be no image at all
        if chosen is not None and (descriptor.platform or rank(platform, chosen.config.platform) is not None):
            return Chosen(indexes=(root, *chosen.indexes), manifest=chosen.manifest, config=chosen.config)
    return None


def offered(root: Manifest | Index) -> str:
    """The platforms that an index names, for people."""
    entries = root.manifests if isinstance(root, Index) else ()
    platforms = {str(entry.platform) for entry in entries if entry.platform and entry.platform.os != "unknown"}
    return ", ".join(sorted(platforms)[:20])


def nested_too_deeply(what: str) -> InvalidImage:
    return InvalidImage(f"{what}: its indexes are nested more than {MAX_DEPTH} deep")
