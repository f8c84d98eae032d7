"""Whose op is called: the jobs that have a vertex have their turns, one after the other, until a call succeeds.

An op is bound to its job, whose client has the directories, the secrets and the logins. It is the next job's turn when
one has left, and when its client lacks what is needed. Whoever comes meanwhile has a turn, too. So two builds that
share a step come to an end with what either client has, and neither notices when the other goes.

A job that leaves takes with it what was opened for it. A call that uses any of it is cancelled, and has ended before
the job has; one that needs no more than the engine (a step that runs) goes on.

Facts: BuildKit session/group.go (Any), solver/jobs.go (sessionGroup): there each question goes to all clients in turn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TYPE_CHECKING, TypeVar

import trio

from buildengine.errors import InternalError
from solver.failures import may_differ
from solver.vertex import Op, Vertex

if TYPE_CHECKING:
    from solver.job import Job

_T = TypeVar("_T")


class _Turn:
    """One call that is going on."""

    __slots__ = ("ended", "job", "op", "scope")

    def __init__(self, job: Job, op: Op) -> None:
        self.job = job
        self.op = op
        self.scope = trio.CancelScope()
        self.ended = trio.Event()


class Turns:
    """Of one vertex; `jobs` are those that have it at any moment, the first to come first."""

    __slots__ = ("_jobs", "_running")

    def __init__(self, jobs: Mapping[Job, Vertex]) -> None:
        self._jobs = jobs
        self._running: set[_Turn] = set()

    async def call(self, call: Callable[[Op], Awaitable[_T]]) -> _T:
        """What `call` makes of the first op with which it succeeds; what the last one raises."""
        had: set[Job] = set()
        while (found := self._next(had)) is not None:
            job, vertex = found
            had.add(job)
            turn = _Turn(job, vertex.op)
            self._running.add(turn)
            try:
                with turn.scope:
                    return await call(vertex.op)
            except Exception as error:
                if not (job.closed or may_differ(error)) or self._next(had) is None:
                    raise
            finally:
                self._running.discard(turn)
                turn.ended.set()
        raise InternalError("the builds that wanted it have ended")  # and nobody hears this

    async def dismiss(self, job: Job) -> None:
        """`job` leaves. What is done with what is its own ends, and is done by the next one."""
        leaving = [turn for turn in self._running if turn.job is job and turn.op.is_bound]
        for turn in leaving:
            turn.scope.cancel()
        for turn in leaving:
            await turn.ended.wait()

    def _next(self, had: Collection[Job]) -> tuple[Job, Vertex] | None:
        return next((item for item in self._jobs.items() if not item[0].closed and item[0] not in had), None)
