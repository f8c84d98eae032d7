"""A `TreeMount` as a directory descriptor: a detached mount that goes with the descriptor. Needs root.

The smallest thing with which the cache's own tests can look at real overlays; the engine's is in `worker.mounts`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from cache.overlay import TreeMount

_libc = ctypes.CDLL(None, use_errno=True)
_OPEN_TREE, _FSOPEN, _FSCONFIG, _FSMOUNT = 428, 430, 431, 432
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_CLONE, _CLOEXEC, _AT_FDCWD = 1, os.O_CLOEXEC, -100


def _syscall(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(arguments))
    return result


@contextmanager
def opened(tree: TreeMount) -> Iterator[int]:
    """The tree, mounted, as a directory that can be read and (with an upper) written."""
    if tree.upper is not None and not tree.lowers:
        mount = os.open(tree.upper, os.O_RDONLY | os.O_DIRECTORY)
    elif len(tree.lowers) == 1 and tree.upper is None:
        mount = _syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(tree.lowers[0]), _CLONE | _CLOEXEC)
    else:
        mount = _overlay(tree)
    try:
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=mount)
        try:
            yield fd
        finally:
            os.close(fd)
    finally:
        os.close(mount)


def _overlay(tree: TreeMount) -> int:
    context = _syscall(_FSOPEN, b"overlay", 1)
    try:
        for lower in tree.lowers:
            _syscall(_FSCONFIG, context, _SET_STRING, b"lowerdir+", os.fsencode(lower), 0)
        if tree.upper is not None and tree.work is not None:
            _syscall(_FSCONFIG, context, _SET_STRING, b"upperdir", os.fsencode(tree.upper), 0)
            _syscall(_FSCONFIG, context, _SET_STRING, b"workdir", os.fsencode(tree.work), 0)
        _syscall(_FSCONFIG, context, _CREATE, None, None, 0)
        return _syscall(_FSMOUNT, context, 1, 0)
    finally:
        os.close(context)
