"""What a process that stays does and a command does not: import everything beforehand, look for garbage in little of
it, answer while steps keep all processors busy, and give memory back.

Measured with 200 sessions and 20 builds on two cores. Of what held the event loop up for more than 10 ms, most was
Python's garbage collector looking at modules (77 ms) and imports at first use (57 ms); then threads of ours that keep
the interpreter for 5 ms at a time, and processes of steps that are scheduled as we are.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import pkgutil
import sys
from contextlib import suppress

from blake3 import blake3

_PACKAGES = ("buildengine.api", "buildengine.daemon", "cache", "frontends", "solver", "worker")
_OF_COMMANDS = ("buildengine.daemon.image", "buildengine.daemon.registry_server", "worker.registry.server")
_LIBRARIES = ("lark",)
# When Python looks for garbage: after 5,000 new objects among these (0.5 ms), at times among 25,000 (6 ms), and among
# all of 200 sessions (90,000: 60 ms) only after a million; `give_back` does that when nobody waits.
_THRESHOLDS = (5_000, 5, 50)
_SWITCH = 0.0005  # seconds that a thread may keep the interpreter while another one waits for it
_NICE = -5
_LARGE = 1 << 20  # bytes that blake3 hashes with several threads
_M_ARENA_MAX = -8


def begin() -> None:
    """Before the first thread: all share one heap. With one for each, what they have freed would stay ours."""
    _malloc("mallopt", _M_ARENA_MAX, 1)


def settle() -> None:
    """To be called once, by the main thread, when what is needed to begin with is there."""
    for name in (*_modules(), *_LIBRARIES):
        importlib.import_module(name)
    blake3(bytes(_LARGE), max_threads=blake3.AUTO)  # its threads are for good
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    sys.setswitchinterval(_SWITCH)
    _go_first()


def _modules() -> list[str]:
    """All of ours that a build may import."""
    found = [
        module.name
        for package in _PACKAGES
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
    ]
    return [name for name in found if not name.startswith(_OF_COMMANDS)]


def _go_first() -> None:
    """This thread only: threads and processes that it starts are as nice as ever (sched(7), SCHED_RESET_ON_FORK)."""
    if os.getpriority(os.PRIO_PROCESS, 0) != 0:
        return  # who started us has said how nice we are to be
    with suppress(PermissionError):  # a container may be without CAP_SYS_NICE
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
        os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))


def give_back() -> None:
    """Memory that nobody uses, to the kernel."""
    gc.collect()
    _malloc("malloc_trim", 0)


def _malloc(name: str, *arguments: int) -> None:
    """mallopt(3), malloc_trim(3): of glibc, other C libraries have neither."""
    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function(*arguments)
