"""The exec op: what its cache key is made of. Running it is `worker.ops.step`'s, imported when something runs."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cache.selection import Selector
from llb import ops
from solver.vertex import CacheMap, Dep, Result
from worker.context import OpContext
from worker.ops import content
from worker.ops.keys import key_digest

if TYPE_CHECKING:  # imported when something runs
    from worker.ops.step import Step


class Exec:
    """`solver.Op` for one exec vertex."""

    def __init__(self, context: OpContext, op: ops.ExecOp, *, input_count: int) -> None:
        self._context = context
        self._op = op
        self._input_count = input_count
        self._step: Step | None = None

    @property
    def is_bound(self) -> bool:
        """A process that runs needs nothing of the build any more, unless it uses the client's agent."""
        return self._step is None or self._step.is_bound

    async def cache_map(self) -> CacheMap:
        return cache_key(self._context, self._op, self._input_count)

    async def exec(self, inputs: Sequence[Result | None]) -> Sequence[Result | None]:
        from worker.ops.step import Step

        self._step = Step(self._context, self._op)
        try:
            return await self._step.run(inputs)
        finally:
            self._step = None


def cache_key(context: OpContext, op: ops.ExecOp, input_count: int) -> CacheMap:
    """Everything that decides the result, less what may differ without changing it (BuildKit ops/exec.go).

    Left out: proxy settings, the addresses of extra hosts, selectors (they are in the deps), and a cache
    mount's id and sharing where they are the defaults.
    """
    meta = replace(
        op.meta, proxy_env=None, extra_hosts=tuple(replace(h, ip="") for h in op.meta.extra_hosts), cgroup_parent=""
    )
    mounts = tuple(_key_mount(mount) for mount in op.mounts)
    digest = key_digest(
        "exec", meta, mounts, int(op.network), int(op.security), op.secret_env, op.cdi_devices, str(context.platform)
    )
    return CacheMap(digest=digest, deps=_deps(context, op, input_count))


def _key_mount(mount: ops.Mount) -> ops.Mount:
    cache = mount.cache
    if cache is not None and cache.sharing is ops.CacheSharing.SHARED and cache.id.endswith(mount.dest):
        cache = None
    return replace(mount, selector="", cache=cache, result_id="")


def _deps(context: OpContext, op: ops.ExecOp, input_count: int) -> tuple[Dep, ...]:
    """Read-only inputs count by content, what is written to counts by how it was made."""
    deps: list[Dep] = []
    for index in range(input_count):
        if selectors := selected(op, index):
            deps.append(content.dep(context, selectors, index))
        else:
            paths = _paths(op, index)
            deps.append(Dep(selector=",".join(paths) if paths != ("/",) else ""))
    return tuple(deps)


def selected(op: ops.ExecOp, index: int) -> tuple[Selector, ...]:
    """What decides of an input that counts by its content; nothing of one that does not."""
    mounts = [mount for mount in op.mounts if mount.input == index]
    if not mounts or not all(map(_content_cached, mounts)):
        return ()
    return tuple(Selector(path=path) for path in _paths(op, index))


def _paths(op: ops.ExecOp, index: int) -> tuple[str, ...]:
    return tuple(sorted({posixpath.normpath("/" + m.selector) for m in op.mounts if m.input == index}))


def _content_cached(mount: ops.Mount) -> bool:
    if mount.dest == "/" or mount.content_cache is ops.ContentCache.OFF:
        return False
    return mount.readonly or mount.output == ops.NO_OUTPUT
