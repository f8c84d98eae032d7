"""Which entry of an index is for a platform."""

from __future__ import annotations

from buildengine.platform import Platform, rank
from worker.oci.types import Descriptor, Index

_MAX_UNLABELLED = 8


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
