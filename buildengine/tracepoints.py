"""Named points between write, rename and commit at which a test can kill the process.

`reach("blob.renamed")` costs one dictionary look-up when nothing is armed. `config` arms a point from the
environment, and the launcher of steps passes it on to its children; nothing else may. A point that fires ends the
process as `kill -9` would: no cleanup runs. Standard library only, and little of that: the launcher loads it.
"""

from __future__ import annotations

import os

_SIGKILL = 9

_armed: dict[str, int] = {}


def arm(name: str, count: int = 1) -> None:
    """Kill this process the `count`-th time that `name` is reached."""
    _armed[name] = count


def armed() -> list[tuple[str, int]]:
    """What is armed, for a helper process that shall end in the same places."""
    return list(_armed.items())


def reach(name: str) -> None:
    """Pass the point `name`."""
    if name not in _armed:
        return
    _armed[name] -= 1
    if _armed[name] == 0:
        os.kill(os.getpid(), _SIGKILL)
