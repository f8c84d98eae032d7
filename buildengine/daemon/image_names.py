"""What a user means by the name, id or digest of an image of the local store.

A module of its own: `pybuild push` needs this of the store's commands and nothing else, and its start-up counts.
"""

from __future__ import annotations

from collections.abc import Sequence

from buildengine.errors import SourceError, UserError
from buildengine.reference import parse
from cache.images import StoredImage
from cache.opened import Cache
from worker.images import manifests_of


def find_image(cache: Cache, reference: str) -> Sequence[StoredImage]:
    """All names of the image that `reference` means: a name, else an id or digest or a prefix of one."""
    name = as_name(reference)
    named = cache.images.find(name) if name else None
    if named is not None:
        return [named, *(image for image in cache.images.by_digest(named.digest) if image.name != named.name)]
    found = list(cache.images.by_digest(reference)) or _by_config(cache, reference)
    if not found:
        raise SourceError(f"no such image: {reference}", hint="`pybuild image ls` shows what there is")
    if len({image.digest for image in found}) > 1:
        raise UserError(f"{reference} is the beginning of several image ids", hint="give more digits")
    return found


def as_name(reference: str) -> str:
    """The full spelling of a name; "" for what can only be an id or a digest."""
    try:
        return str(parse(reference))
    except UserError:
        return ""


def _by_config(cache: Cache, prefix: str) -> list[StoredImage]:
    digits = prefix.removeprefix("sha256:")
    if not digits:
        return []
    return [
        image
        for image in cache.images.list()
        if any(manifest.config.digest.hex.startswith(digits) for manifest, _ in manifests_of(cache.store, image.digest))
    ]
