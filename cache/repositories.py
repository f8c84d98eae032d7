"""What the remote sources keep beside the cache: bare git repositories, and what web servers said of their files.

They are made and used by `worker.sources`, each repository under the lock `git <name>`. Here they are only listed
and deleted, so that `du` and `prune` tell all there is.
"""

from __future__ import annotations

import os
from pathlib import Path

from buildengine.builder import UsageInfo
from cache.locks import Locks
from cache.removal import remove_tree
from cache.treesize import tree_size

PREFIX = "git-"


def listed(root: Path, locks: Locks) -> list[UsageInfo]:
    """The git repositories. One that a build has at this moment is in use."""
    found = []
    for name in _names(root / "git"):
        path = root / "git" / name
        if "." in name or not path.is_dir():
            continue  # being made
        info = path.stat()
        found.append(
            UsageInfo(
                id=PREFIX + name,
                kind="source.git.checkout",
                description="shared git repository",
                size=tree_size(path),
                mutable=True,
                in_use=not _is_free(locks, name),
                created=info.st_ctime,
                last_used=info.st_mtime,
            )
        )
    return found


def delete(root: Path, locks: Locks, id: str) -> bool:
    """Delete a repository, unless a build has it. Blocks."""
    name = id.removeprefix(PREFIX)
    lock = locks.try_lock(f"git {name}")
    if lock is None:
        return False
    try:
        remove_tree(root / "git" / name)
    finally:
        lock.release()
    return True


def sweep(root: Path, locks: Locks) -> None:
    """Remove the repositories that a killed process was making, `<name>.<random>.new`."""
    for entry in _names(root / "git"):
        name, dot, _ = entry.partition(".")
        lock = locks.try_lock(f"git {name}") if dot else None
        if lock is not None:
            try:
                remove_tree(root / "git" / entry)
            finally:
                lock.release()


def forget_answers(root: Path) -> None:
    """Drop what web servers said: the next build asks them anew."""
    for name in _names(root / "http"):
        (root / "http" / name).unlink(missing_ok=True)


def _is_free(locks: Locks, name: str) -> bool:
    lock = locks.try_lock(f"git {name}", shared=True)
    if lock is None:
        return False
    lock.release()
    return True


def _names(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
