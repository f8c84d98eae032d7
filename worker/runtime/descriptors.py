"""How many files we may have open, and how many the processes of steps may.

A step takes five descriptors of the engine and a client one, so the usual soft limit of 1024, which is for programs
that call select(2), ends builds of some hundred steps at a time. The hard limit is ours to take; steps get what we were
given.

Facts: Go's os/rlimit.go and syscall/rlimit.go, by which BuildKit's daemon and its steps have the same.
"""

from __future__ import annotations

import resource
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a command that runs no step needs none
    from worker.runtime.spec import ProcessSpec

_MOST = 1 << 20  # what a kernel allows unless told otherwise: fs.nr_open
_NAME = "nofile"
_given: list[tuple[int, int]] = []  # what this process began with, once that was changed


def take_all() -> None:
    """Let this process open as many files as its hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            _given.append((soft, hard))


def limited(spec: ProcessSpec) -> ProcessSpec:
    """With the limit that this process began with, unless the step has one of its own."""
    if not _given or any(each.name == _NAME for each in spec.rlimits):
        return spec
    from worker.runtime.spec import Rlimit

    soft, hard = _given[0]
    return replace(spec, rlimits=(*spec.rlimits, Rlimit(name=_NAME, soft=soft, hard=hard)))
