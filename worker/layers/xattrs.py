"""Which extended attributes belong to a file of an image, and reading and writing them on open descriptors.

Kept: file capabilities, POSIX ACLs and the user's own. Never: `trusted.*` and `user.overlay.*`, by which an archive
could tell overlayfs to show other files (Documentation/filesystems/overlayfs.rst, "redirect_dir", "metacopy",
"userxattr"), nor the labels of this host's security modules.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping

from worker.layers.tar import NO_XATTRS

CAPABILITY = "security.capability"
_KEPT = frozenset((CAPABILITY, "system.posix_acl_access", "system.posix_acl_default"))


def is_kept(name: str) -> bool:
    """Whether the attribute is part of an image."""
    return (name.startswith("user.") and not name.startswith("user.overlay.")) or name in _KEPT


def read(fd: int, names: Iterable[str] | None = None) -> Mapping[str, bytes]:
    """The kept attributes of an open file or directory. `names` is what os.listxattr said, when it was asked."""
    kept = [name for name in (list_names(fd) if names is None else names) if is_kept(name)]
    return {name: os.getxattr(fd, name) for name in kept} if kept else NO_XATTRS


def list_names(fd: int) -> list[str]:
    """All attribute names, none where the file system has no attributes."""
    try:
        return os.listxattr(fd)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise


def write(fd: int, xattrs: Mapping[str, bytes]) -> None:
    """Set the kept ones among `xattrs` on an open file or directory.

    Losing one of the user's own to a file system that has none (tmpfs before 6.6) harms nobody; losing a capability
    or an ACL would make another image, so that is the caller's OSError.
    """
    for name, value in xattrs.items():
        if is_kept(name):
            try:
                os.setxattr(fd, name, value)
            except OSError as error:
                if error.errno != errno.ENOTSUP or not name.startswith("user."):
                    raise
