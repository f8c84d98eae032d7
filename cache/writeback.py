"""Starting to write a file out, without waiting: the `syncfs` at the end of a command then finds little to do."""

from __future__ import annotations

import ctypes

_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
_WRITE = 2  # SYNC_FILE_RANGE_WRITE


def begin_writeback(fd: int) -> None:
    """Give the disk what the kernel has of this file. Promises nothing: who must be sure syncs."""
    _libc.sync_file_range(fd, 0, 0, _WRITE)
