"""Chain ids: what a layer is together with all below it (OCI image-spec config.md, "Layer ChainID"). Pure."""

from __future__ import annotations

from collections.abc import Iterable

from buildengine.digest import Digest


def chain_ids(diff_ids: Iterable[Digest]) -> list[Digest]:
    """The chain id of each layer, base first."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(Digest.sha256(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain
