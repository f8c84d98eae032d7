"""Directories of a checkout, reached without following a symlink: the repository may have put one anywhere."""

from __future__ import annotations

import os

from buildengine.errors import GitError


def open_real_directory(root: int, path: str) -> int:
    """The directory at `path`, where no component is a symlink. Raises GitError."""
    current = os.dup(root)
    try:
        for part in path.split("/"):
            if part in ("", ".", "..") or part.lower() == ".git":
                raise GitError(f"a directory of a repository cannot be at {path!r}")
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
            os.close(current)
            current = inner
    except BaseException as error:
        os.close(current)
        if isinstance(error, OSError):
            raise GitError(f"the repository's {path!r} is not a directory: {error.strerror}") from error
        raise
    return current


def move_up(checkout: int, subdir: str, directory: int) -> None:
    """Move what is in `subdir` of the checkout into `directory`; no symlink is followed."""
    source = open_real_directory(checkout, subdir)
    try:
        for name in os.listdir(source):
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=directory)
    finally:
        os.close(source)
