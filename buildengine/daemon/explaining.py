"""What a build that ran something was made of, written down; and, where it was asked, why each of its steps ran.

Of a build that found everything in the cache and was not asked to explain itself this is a walk over its steps. What
the rest needs is imported when it is needed. See docs/explain.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from buildengine.builder import SESSION_HOST, BuildRequest
from buildengine.daemon.solving import Solving
from buildengine.digest import Digest
from buildengine.errors import BuildError
from buildengine.events import EventSink, ExplainEvent
from buildengine.limits import PATTERNS, offload
from cache.opened import Cache
from llb import giturl
from llb.graph import Node
from solver.job import Job
from solver.steps import Fate, SolvedStep
from worker.session import Session

if TYPE_CHECKING:
    from worker.explain.differences import Declared
    from worker.explain.files import Listing
    from worker.explain.step import Build

_MOST = 2_000  # steps of a build that are written down and explained


async def explain(
    cache: Cache, request: BuildRequest, session: Session, solving: Solving, job: Job, on_event: EventSink
) -> None:
    """To be called when the job has done what it could. What goes wrong here is no failure of the build."""
    with suppress(BuildError, OSError):
        solved = [*job.steps()][:_MOST]
        if request.explain or _is_news(solved):
            for event in await _Explaining(cache, request, session, solving, job, solved).run():
                on_event(event)


def _is_news(solved: Sequence[SolvedStep]) -> bool:
    """Did anything run that may be found again?"""
    ran = (Fate.RAN, Fate.FAILED)
    return any(each.fate in ran and each.cache_map is not None and each.cache_map.stable for each in solved)


class _Explaining:
    """One build at its end."""

    def __init__(
        self,
        cache: Cache,
        request: BuildRequest,
        session: Session,
        solving: Solving,
        job: Job,
        solved: Sequence[SolvedStep],
    ) -> None:
        self._cache = cache
        self._trees = solving.context.trees
        self._kept = cache.explained
        self._request = request
        self._job = job
        self._subject = _subject(cache, request, session)
        self._nodes: dict[Digest, Node] = {}
        for graph in solving.loaded:
            self._nodes.update(graph.nodes)
        self._solved = [each for each in solved if each.vertex.digest in self._nodes]
        self._lists: dict[str, bytes] = {}

    async def run(self) -> list[ExplainEvent]:
        """Explains, then writes down: a build is not compared with itself."""
        from worker.explain.described import describe
        from worker.explain.files import new_lists
        from worker.explain.step import encode

        options, results = self._request.options, [*self._job.results()]
        build = describe(self._solved, self._nodes, results, options, _label(self._request))
        self._lists = await new_lists(build, self._nodes, results, self._kept.has_files)
        told = await self._explanations(build) if self._request.explain else []
        if _is_news(self._solved):
            reads = [one.files for step in build.steps for one in step.inputs if one.files]
            await self._kept.save(self._subject, encode(build), self._lists, reads)
        return told

    async def _explanations(self, build: Build) -> list[ExplainEvent]:
        from worker.explain.causes import explanations
        from worker.explain.comparison import Comparison
        from worker.explain.described import today
        from worker.explain.nearest import find
        from worker.explain.stages import changed_in_stages

        compare = partial(
            Comparison, build, files=self._files, would_hit=self._kept.would_hit, declared=self._declared()
        )
        # in threads: of hundreds of edited steps it takes its time, and others are to be answered
        found = await offload(find, build, self._kept, self._subject, compare, limiter=PATTERNS)
        in_stages = await changed_in_stages(found[1], self._nodes, self._cache, self._trees) if found else {}
        known = today(self._solved, self._request.options)
        return await offload(explanations, build, known, found, in_stages, limiter=PATTERNS)

    def _files(self, name: str) -> Listing | None:
        from worker.explain.files import read

        return read(self._lists.get(name) or self._kept.files(name))

    def _declared(self) -> Declared:
        """By the files that the steps come from, as far as those are Dockerfiles."""
        from frontends.dockerfile.declared import declared
        from worker.explain.differences import Declared

        places = [place for node in self._nodes.values() for place in node.locations]
        names = [declared(text) for text in {place.text for place in places if place.language == "Dockerfile"}]
        return Declared(
            arguments={name: default for each in names for name, default in each.arguments.items()},
            environment=frozenset().union(*[each.environment for each in names]),
        )


def _subject(cache: Cache, request: BuildRequest, session: Session) -> str:
    """What a build has in common with the ones it is compared with: frontend, context and file.

    "" where files come from nowhere that is known: an archive on standard input, nothing, a client that does not say.
    """
    context, address = request.directories.get("context"), request.options.get("context", "")
    is_empty = context is not None and context.is_relative_to(cache.root)  # see `daemon.given_context`
    if is_empty or _is_upload(address) or not (address or session.place):
        return ""
    place = "" if address else session.place
    options = [request.options.get(name, "") for name in ("context", "filename", "source")]
    parts = "\0".join([request.frontend, place, *options])
    return hashlib.sha256(parts.encode("utf-8", "surrogateescape")).hexdigest()


def _is_upload(address: str) -> bool:
    return address.startswith(f"http://{SESSION_HOST}/")


def _label(request: BuildRequest) -> str:
    """What people call the build."""
    context = request.options.get("context")
    if context:
        return "an archive on standard input" if _is_upload(context) else giturl.redacted(context)
    directory = request.directories.get("context")
    return str(directory) if directory is not None else "another directory"
