"""The one on-disk format of a layer, and the description of how layers make a tree.

A layer is a directory in overlayfs upper format: changed files and directories as they are, a deleted name as
a character device 0:0 (a whiteout), a replaced directory with the xattr `trusted.overlay.opaque` = `y`
(Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories"). A tree is a stack of layers,
so a merge is a longer stack and copies nothing.

Nothing here mounts: `TreeMount` says what to mount, the worker does it.
"""

from __future__ import annotations

from collections.abc import Sequence

from buildengine.values import dataclass

OPAQUE_XATTR = "trusted.overlay.opaque"


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeMount:
    """How to see a tree. All paths are absolute directories of this host.

    lowers only        read-only: a bind of the one lower, an overlay without upper for more
    lowers and upper   an overlay; `work` is its work directory, on the file system of `upper`
    upper only         `upper` itself, writable
    nothing            the empty tree, read-only
    `lowers` has the topmost layer first, as overlayfs wants it.
    """

    lowers: tuple[str, ...] = ()
    upper: str | None = None
    work: str | None = None


def once(stack: Sequence[str]) -> tuple[str, ...]:
    """The same tree with each layer once, where it is topmost: there it hides what it has further down."""
    return tuple(reversed(dict.fromkeys(reversed(stack))))
