"""The small files of /proc, of control groups and of binfmt_misc, by which the kernel is asked and told.

Standard library only: launcher and supervisor use it.
"""

from __future__ import annotations

import os


def read(path: str, *, dir_fd: int | None = None) -> str:
    """All of it: the kernel gives /proc/self/mountinfo in pieces of 4 KiB, however much is asked for."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        pieces = [os.read(fd, 1 << 16)]
        while pieces[-1]:
            pieces.append(os.read(fd, 1 << 16))
    finally:
        os.close(fd)
    return b"".join(pieces).decode(errors="surrogateescape")  # paths are bytes


def write(path: str, *texts: str, dir_fd: int | None = None) -> None:
    """Each text in a write of its own: a control file takes one command at a time."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        for text in texts:
            try:
                os.write(fd, text.encode())
            except OSError as error:
                raise OSError(error.errno, error.strerror, f"{path} = {text}") from None
    finally:
        os.close(fd)
