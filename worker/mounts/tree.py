"""A tree of layers as a directory descriptor: `with open_tree(tree) as fd:`.

The mount behind it is attached nowhere: no path leads to it, no other process sees it, and it dissolves with the
descriptor, also when this process is killed. Used in the engine for everything that reads or writes a tree
without running a step in it: file operations, content hashes, exports. Which layers make a tree is the cache's
business, what is done with the tree is the caller's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from buildengine.errors import HostError
from buildengine.limits import UNMOUNT, offload_later
from cache.overlay import TreeMount
from worker.runtime import syscalls
from worker.runtime.assembly import SCRATCH
from worker.runtime.overlay import MAX_LAYERS, Overlay, TooManyLayers

_overlay = Overlay()
# Whoever reads files here must not wake a device by opening what an image calls its passwd.
_INERT = syscalls.ATTR_NODEV | syscalls.ATTR_NOSUID | syscalls.ATTR_NOEXEC


@contextmanager
def open_tree(tree: TreeMount, *, lacking: Iterable[str] = ()) -> Iterator[int]:
    """A descriptor (O_DIRECTORY, not O_PATH: it can be listed) of the tree's root, read-only without `upper`.

    The process must have a mount namespace of its own (`worker.runtime.isolate.private_mounts`): on kernels
    before 6.7 the overlay is attached for a moment. `lacking` names kernel features to do without, for tests.
    """
    mounted = _mount(tree, frozenset(lacking))
    try:
        root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mounted)
        try:
            yield root
        finally:
            os.close(root)
    finally:  # the mount is this descriptor's, so it must be the last
        if tree.upper:
            os.close(mounted)  # another mount of the same upper directory must find it gone
        else:
            offload_later(os.close, mounted, limiter=UNMOUNT)  # it waits for every processor: 20 ms when all are busy


def _mount(tree: TreeMount, lacking: frozenset[str]) -> int:
    overlay = _overlay
    if lacking:
        overlay = Overlay()
        overlay.lowerdir_append = "lowerdir+" not in lacking
    try:
        return overlay.assemble(list(tree.lowers), tree.upper, tree.work, attach=SCRATCH, attributes=_INERT)
    except TooManyLayers as error:
        raise HostError(
            f"a tree of {error} layers cannot be mounted: this kernel's overlayfs takes fewer",
            hint=f"flatten it: copy what it shows into one layer (Linux 6.7 and later mount up to {MAX_LAYERS})",
        ) from None
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        raise HostError(
            f"cannot mount a tree of {len(tree.lowers)} layers: {what}{error.strerror}",
            hint="pybuild needs root (CAP_SYS_ADMIN) and overlayfs",
        ) from error
