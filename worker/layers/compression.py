"""How a layer is compressed: what people and media types call it, and which levels there are.

What compresses is in `compress`, whose libraries take a while to load.
"""

from __future__ import annotations

from enum import Enum

from buildengine.errors import ConfigError


class Compression(Enum):
    """How a layer blob is compressed; the value is the name in options."""

    GZIP = "gzip"
    ZSTD = "zstd"
    UNCOMPRESSED = "uncompressed"


_LEVELS = {Compression.GZIP: range(10), Compression.ZSTD: range(1, 23)}
_DEFAULT = {Compression.GZIP: 6, Compression.ZSTD: 3}


def chosen_level(compression: Compression, level: int | None) -> int:
    """The level in the user's terms: gzip 0 to 9, zstd 1 to 22; None and -1 are the default. What is not compressed has
    only 0. Raises ConfigError for a level that does not exist."""
    levels = _LEVELS.get(compression)
    if levels is None:
        return 0
    if level is None or level == -1:
        return _DEFAULT[compression]
    if level not in levels:
        raise ConfigError(
            f"{compression.value} has no compression level {level}", hint=f"from {levels[0]} to {levels[-1]}"
        )
    return level


_OCI = "application/vnd.oci.image.layer.v1.tar"
_OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
_DOCKER = "application/vnd.docker.image.rootfs.diff.tar"
_DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"
_OCI_SUFFIX = {Compression.UNCOMPRESSED: "", Compression.GZIP: "+gzip", Compression.ZSTD: "+zstd"}
_DOCKER_SUFFIX = {Compression.UNCOMPRESSED: "", Compression.GZIP: ".gzip", Compression.ZSTD: ".zstd"}
_BY_MEDIA_TYPE = {
    base + suffix: compression
    for bases, suffixes in (((_OCI, _OCI_FOREIGN), _OCI_SUFFIX), ((_DOCKER, _DOCKER_FOREIGN), _DOCKER_SUFFIX))
    for base in bases
    for compression, suffix in suffixes.items()
}


def media_type(compression: Compression, *, docker: bool) -> str:
    """The media type of a layer, in Docker's family of types or OCI's."""
    return _DOCKER + _DOCKER_SUFFIX[compression] if docker else _OCI + _OCI_SUFFIX[compression]


def compression_of(media_type: str) -> Compression | None:
    """How a layer of this media type is compressed; None when it is no layer's."""
    return _BY_MEDIA_TYPE.get(media_type)
