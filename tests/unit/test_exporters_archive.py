"""What of the store an archive of images holds."""

from __future__ import annotations

from pathlib import Path

from buildengine.reference import parse
from cache.store import ContentStore
from worker.exporters.archive import image_blobs
from worker.exporters.document import OCI, index_bytes
from worker.images import manifests_of
from worker.oci.layout import NamedImage
from worker.oci.types import Descriptor


def test_an_index_that_names_others_again_and_again_is_read_once(tmp_path: Path) -> None:
    """Each way down would be more than 10^15 of them."""
    store = ContentStore(tmp_path)
    descriptor: Descriptor | None = None
    digests = []
    for _ in range(10):
        raw = index_bytes([descriptor] * 40 if descriptor else [], OCI)
        descriptor = Descriptor(media_type=OCI.index, digest=store.put(raw).digest, size=len(raw))
        digests.append(descriptor.digest)
    assert descriptor is not None
    image = NamedImage(target=descriptor, names=(str(parse("a")),))
    assert [blob.digest for blob in image_blobs(store, [image, image])] == sorted(digests)
    assert manifests_of(store, descriptor.digest) == []
