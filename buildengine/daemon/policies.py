"""What the source policies of a build, and a client that decides itself, make of what the build wants to read.

Facts: BuildKit solver/llbsolver/{bridge,policy,vertex}.go (when sources are looked at, and the texts).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import trio

from buildengine.digest import Digest
from buildengine.errors import UserError
from buildengine.limits import PATTERNS, offload
from buildengine.platform import Platform
from frontends.gateway import Details, ResolvedSource
from llb.definition import Definition
from llb.ops import Op, SourceOp
from worker.layers.outcome import one_error

if TYPE_CHECKING:  # few builds have any
    from buildengine.sourcepolicy import Policy

Resolve = Callable[[SourceOp, Platform | None, str, str, Details], Awaitable[ResolvedSource]]


class Verifier(Protocol):
    """Somebody who is asked about every source, after the policies."""

    async def check(self, source: SourceOp, platform: Platform | None, resolve: Resolve) -> None:
        """Raises UserError for what may not be read."""
        ...


class Policies:
    """`own` is the build's; a frontend may give more for one question."""

    def __init__(self, own: Policy | None, verifier: Verifier | None, resolve: Resolve) -> None:
        self._own = () if own is None else (own,)
        self._verifier = verifier
        self._resolve = resolve
        self._settled: dict[Digest, list[tuple[tuple[Policy, ...], Definition]]] = {}

    async def source(self, source: SourceOp, platform: Platform | None, more: Sequence[Policy] = ()) -> SourceOp:
        """What is to be resolved in the place of `source`. Raises UserError."""
        if not (self._own or more or self._verifier):
            return source
        from buildengine.sourcepolicy import about

        with about("could not resolve image due to policy"):
            return await self._settle(source, platform, more)

    async def definition(self, definition: Definition, more: Sequence[Policy] = ()) -> Definition:
        """What is to be built in the place of `definition`, which is asked about once. Raises UserError."""
        if definition.is_scratch or not (self._own or more or self._verifier):
            return definition
        for policies, settled in self._settled.get(_name(definition), ()):
            if policies == tuple(more):
                return settled
        settled = await self._converted(definition, more)
        for name, policies in ((_name(definition), tuple(more)), (_name(settled), ())):
            self._settled.setdefault(name, []).append((policies, settled))
        return settled

    async def _converted(self, definition: Definition, more: Sequence[Policy]) -> Definition:
        from buildengine.sourcepolicy import about
        from llb import replacing

        changed: dict[Digest, SourceOp] = {}

        async def one(digest: Digest, op: Op) -> None:
            assert isinstance(op.payload, SourceOp)
            try:
                with about("error evaluating the source policy"):
                    settled = await self._settle(op.payload, op.platform, more)
            except UserError as error:
                raise error.located(*definition.source.locations(digest), vertex=digest) from None
            if settled != op.payload:
                changed[digest] = settled

        with one_error():
            async with trio.open_nursery() as nursery:
                for digest, op in replacing.sources(definition).items():
                    nursery.start_soon(one, digest, op)
        return replacing.with_sources(definition, changed)

    async def _settle(self, source: SourceOp, platform: Platform | None, more: Sequence[Policy]) -> SourceOp:
        from buildengine.sourcepolicy import Source, evaluate

        found = asked = Source(identifier=source.identifier, attrs=source.attrs)
        if policies := (*self._own, *more):  # in a thread: what is in them may take long, and is a client's
            found = await offload(evaluate, policies, asked, trio.from_thread.check_cancelled, limiter=PATTERNS)
        settled = source if found is asked else SourceOp(identifier=found.identifier, attrs=found.attrs)
        if self._verifier is not None:
            await self._verifier.check(settled, platform, self._resolve)
        return settled


def _name(definition: Definition) -> Digest:
    """The last operation names all that it is built on."""
    return Digest.sha256(definition.ops[-1])
