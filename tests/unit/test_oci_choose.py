"""Which entry of an index is taken for a platform."""

from __future__ import annotations

import pytest

from buildengine.digest import Digest
from buildengine.platform import parse
from worker.oci.choose import candidates
from worker.oci.types import Descriptor, Index


def entry(number: int, platform: str | None) -> Descriptor:
    return Descriptor(
        media_type="application/vnd.oci.image.manifest.v1+json",
        digest=Digest.sha256(b"%d" % number),
        size=number,
        platform=None if platform is None else parse(platform),
    )


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["linux/386", "linux/amd64", "linux/amd64"], [1]),  # the best, of equals the first
        (["linux/arm64", "linux/386"], [1]),
        (["linux/arm64", "unknown/unknown"], []),
        ([None, "linux/386"], [1]),
        ([None, "linux/arm64", None], [0, 2]),
        ([None] * 10, [*range(8)]),
    ],
)
def test_which_entry_of_an_index(offered: list[str | None], chosen: list[int]) -> None:
    entries = tuple(entry(number, platform) for number, platform in enumerate(offered))
    index = Index(
        raw=b"", digest=Digest.sha256(b""), media_type="application/vnd.oci.image.index.v1+json", manifests=entries
    )
    assert [found.size for found in candidates(index, parse("linux/amd64"))] == chosen
