"""What every op of one build is made with: the cache, trees, the session, the runtime; and a step's own name."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from buildengine.platform import Platform
from buildengine.values import dataclass
from cache.opened import Cache
from solver.reporter import Reporter
from worker.failures import Failures
from worker.images import Images
from worker.ops.clipping import OutputLimits
from worker.runtime.spec import StepLimits
from worker.session import Session
from worker.trees import Trees

if TYPE_CHECKING:  # a cached build never needs them
    from worker.remotes import Remotes
    from worker.runtime.runtime import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Dns:
    """What replaces the lines of the host's resolv.conf in steps; what is empty stays the host's."""

    nameservers: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    search_domains: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildContext:
    """One build's access to the worker. `runtime` opens it on first use: a cached build never starts it.

    `renewed_mounts` are the ids of the cache mounts that this build has begun anew.
    """

    cache: Cache
    images: Images
    remotes: Callable[[], Awaitable[Remotes]]
    trees: Trees
    session: Session
    runtime: Callable[[], Awaitable[Runtime]]
    limits: StepLimits
    dns: Dns = Dns()
    output: OutputLimits = OutputLimits()
    emulators: Path | None = None  # the directory that has them, if not the usual ones
    entitlements: frozenset[str] = frozenset()
    renewed_mounts: set[str] = field(default_factory=set)
    failures: Failures = field(default_factory=Failures)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpContext:
    """A build, and the one vertex that an op is for."""

    build: BuildContext
    reporter: Reporter
    platform: Platform
    name: str

    @property
    def cache(self) -> Cache:
        return self.build.cache

    @property
    def trees(self) -> Trees:
        return self.build.trees

    @property
    def session(self) -> Session:
        return self.build.session


def step_id() -> str:
    """A name for one run of one step: its spec and its locks of cache mounts carry it."""
    return f"pybuild-{secrets.token_hex(8)}"
