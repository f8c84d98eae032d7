"""Named points between write, rename and commit at which a test can kill the process.

`reach("blob.renamed")` costs one dictionary look-up when nothing is armed. `config` arms a point from the
environment; nothing else may. A point that fires ends the process as `kill -9` would: no cleanup runs.
"""

from __future__ import annotations

import os
import signal

_armed: dict[str, int] = {}


def arm(name: str, count: int = 1) -> None:
    """Kill this process the `count`-th time that `name` is reached."""
    _armed[name] = count


def reach(name: str) -> None:
    """Pass the point `name`."""
    if name not in _armed:
        return
    _armed[name] -= 1
    if _armed[name] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
