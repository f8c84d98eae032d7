"""A host with a registration of its own, for the length of a test, and how it runs arm64 programs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from buildengine import platform
from worker.runtime import binfmt, runnable
from worker.runtime.emulation import Emulator


@contextmanager
def registered_on_the_host(emulator: Emulator, flags: str = "POCF") -> Iterator[None]:
    """As a distribution's package does it. If this process is killed the kernel forgets it, too."""
    name = f"pybuild-test-{os.getpid()}"
    instance = binfmt.mounted()
    try:
        binfmt.register(instance, name, emulator.magic, emulator.mask, emulator.program, flags)
        try:
            yield
        finally:
            fd = os.open(name, os.O_WRONLY, dir_fd=instance)
            os.write(fd, b"-1")
            os.close(fd)
    finally:
        os.close(instance)


def how_arm64_runs() -> str:
    return str(runnable.choose(platform.parse("linux/arm64")))
