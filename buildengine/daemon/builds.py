"""The builds that run now, or did a moment ago, by their refs: who asks for one too early waits for it.

Facts: BuildKit solver/jobs.go (NewJob, Get, Discard).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path

import trio

from buildengine.api.journal import Journal
from buildengine.errors import BuildError
from cache.diskerrors import explained

WAIT = 6.0  # seconds for a build to begin
QUIET = 15.0  # seconds without a build after which none is near
KEPT = 10.0  # seconds for which one that has ended and left no record can still be followed


class Stopped(BuildError):
    """The daemon ends."""

    grpc_code = 14  # UNAVAILABLE

    def __init__(self) -> None:
        super().__init__("the daemon is shutting down")


class RunningBuild:
    """`path` is the file of the journal, until somebody moves it elsewhere. `is_recorded`: the history has it all."""

    def __init__(self, ref: str, path: Path) -> None:
        self.ref = ref
        self.path = path
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.is_recorded = False
        with explained("cannot write down what the build says"):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._users = 0
        self.journal = Journal(self._fd)

    @contextmanager
    def used(self) -> Iterator[Journal]:
        """The journal, which can be followed within this block also when the build has ended meanwhile."""
        self.take()
        try:
            yield self.journal
        finally:
            self.leave()

    def take(self) -> None:
        """One more uses the file; he is to `leave`."""
        self._users += 1

    def leave(self) -> None:
        self._users -= 1
        if not self._users:
            os.close(self._fd)


class Builds:
    """`directory` takes the journals, under names that begin with `owner`; `nursery` outlives every build."""

    def __init__(self, directory: Path, owner: str, nursery: trio.Nursery) -> None:
        self._directory = directory
        self._owner = owner
        self._nursery = nursery
        self._builds: dict[str, RunningBuild] = {}
        self._number = 0
        self._changed = trio.lowlevel.ParkingLot()
        self._stopped = False

    @contextmanager
    def begun(self, ref: str) -> Iterator[RunningBuild]:
        """One build, for as long as the block lasts. Raises BuildError for a ref that is in use, Stopped."""
        if self._stopped:
            raise Stopped
        known = self._builds.get(ref)
        if known is not None and not known.ended.is_set():
            raise BuildError(f"job ID {ref} exists")
        self._number += 1
        build = RunningBuild(ref, self._directory / f"{self._owner}.journal-{self._number}")
        with build.used():
            self._builds[ref] = build
            self._changed.unpark_all()
            try:
                with build.scope:
                    yield build
                if build.scope.cancelled_caught:
                    raise Stopped
            finally:
                self._end(build)

    async def find(self, ref: str, *, timeout: float = WAIT) -> RunningBuild | None:
        with trio.move_on_after(timeout):
            while ref not in self._builds:
                await self._changed.park()
            return self._builds[ref]
        return None

    async def quiet(self) -> None:
        """Until builds have run, and none has for `QUIET` seconds."""
        seconds = inf
        while True:
            with trio.move_on_after(seconds):
                await self._changed.park()
                seconds = inf if self._running() else QUIET
                continue
            return

    async def stop(self) -> int:
        """End every build, and let none begin; how many ran, when the last has ended."""
        self._stopped = True
        running = self._running()
        for build in running:
            build.scope.cancel()
        for build in running:
            await build.ended.wait()
        return len(running)

    def _running(self) -> list[RunningBuild]:
        return [build for build in self._builds.values() if not build.ended.is_set()]

    def _end(self, build: RunningBuild) -> None:
        build.journal.end()
        build.ended.set()
        self._changed.unpark_all()
        with suppress(OSError):
            build.path.unlink(missing_ok=True)
        if build.is_recorded:
            self._forget(build)
        else:
            build.take()
            self._nursery.start_soon(self._forget_later, build)

    async def _forget_later(self, build: RunningBuild) -> None:
        try:
            await trio.sleep(KEPT)
        finally:
            build.leave()
            self._forget(build)

    def _forget(self, build: RunningBuild) -> None:
        if self._builds.get(build.ref) is build:
            del self._builds[build.ref]
