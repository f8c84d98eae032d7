"""What a build hands to its exporters: one tree and image config for each platform."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from buildengine.digest import Digest
from buildengine.platform import Platform
from buildengine.values import dataclass
from cache.layerrows import RemoteBlob
from solver.export import KeyGraph
from worker.exporters.annotations import Annotations
from worker.results import Stack

if TYPE_CHECKING:  # few results have any
    from worker.exporters.attestations import Attestation


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseLayer:
    """A layer of the image that a result is based on: what it is called, and the blob by which that image has it.

    `urls` are where a layer lies that may not be distributed.
    """

    diff_id: Digest
    blob: RemoteBlob
    urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformImage:
    """The result for one platform: the tree's layers and the frontend's image config.

    `id` is the platform as it was asked for; `platform` says more where the base image does (a version of Windows).
    `base_config` is the config of the image that it is based on, b"" where there is none or nobody said; `base` are
    the layers of that image. `key_graph` gives the keys of the tree, for whoever exports its cache. `attestations` are
    what is to be said of it, as a frontend or the engine gave it.
    """

    id: str
    platform: Platform
    stack: Stack
    config: bytes
    base_config: bytes = b""
    base: tuple[BaseLayer, ...] = ()
    key_graph: Callable[[], KeyGraph] = KeyGraph
    attestations: tuple[Attestation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """`multi_platform`: a set by platform, an index then, though it may have one member only.

    `annotations` are those that the frontend gave; they win over an exporter's. `names` are its names for the image,
    with commas, for an exporter that wants them.
    """

    images: tuple[PlatformImage, ...]
    multi_platform: bool = False
    annotations: Annotations = Annotations()
    names: str = ""

    @property
    def platforms(self) -> tuple[str, ...]:
        return tuple(image.id for image in self.images)
