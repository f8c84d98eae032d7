"""How much disk a tree takes."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def tree_size(directory: Path) -> int:
    """The disk space of a tree, its hard links counted once. What vanishes meanwhile does not count."""
    total, seen = 0, set[int]()
    waiting = [str(directory)]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue
        for entry in entries:
            try:
                info = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if stat.S_ISDIR(info.st_mode):
                waiting.append(entry.path)
            elif info.st_nlink > 1:
                if info.st_ino in seen:
                    continue
                seen.add(info.st_ino)
            total += info.st_blocks * 512
    return total
