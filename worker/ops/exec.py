"""The exec op: one process in a new layer on its root, with its mounts.

What it decides is data (`ProcessSpec`); `worker.runtime` acts on it. A new layer is made for the root and for
every mount with an output; when the process ends well they are committed, otherwise they are thrown away.
"""

from __future__ import annotations

import posixpath
import signal as signals
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Literal

from buildengine.errors import ExecFailed, HostError, UserError
from cache.layers import NewLayer
from cache.overlay import TreeMount
from cache.selection import Selector
from llb import ops
from solver.vertex import CacheMap, Dep, Result
from worker.context import OpContext, step_id
from worker.ops import content, users
from worker.ops.hostfiles import host_files
from worker.ops.keys import key_digest
from worker.results import Snapshot, Stack
from worker.runtime.runtime import Exit
from worker.runtime.spec import (
    DEFAULT_HOSTNAME,
    BindMount,
    Mount,
    ProcessSpec,
    Rlimit,
    SecretFile,
    TmpfsMount,
    TreeMountPoint,
)
from worker.session import SecretBytes

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TAIL = 16 << 10  # how much of a failed step's output its error carries


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
        mounts = [mount for mount in op.mounts if mount.input == index]
        by_content = bool(mounts) and all(_content_cached(mount) for mount in mounts)
        selectors = tuple(sorted({posixpath.normpath("/" + m.selector) for m in mounts}))
        if by_content:
            deps.append(content.dep(context, tuple(Selector(path=path) for path in selectors)))
        else:
            deps.append(Dep(selector=",".join(selectors) if selectors != ("/",) else ""))
    return tuple(deps)


def _content_cached(mount: ops.Mount) -> bool:
    if mount.dest == "/" or mount.content_cache is ops.ContentCache.OFF:
        return False
    return mount.readonly or mount.output == ops.NO_OUTPUT


@dataclass(slots=True)
class _Prepared:
    """What has been made ready for one run. `layers` become outputs, `scratch` is thrown away."""

    points: list[Mount] = field(default_factory=list)
    root: TreeMount | None = None
    readonly_root: bool = False
    root_stack: Stack = ()
    layers: dict[int, tuple[Stack, NewLayer]] = field(default_factory=dict)
    results: dict[int, Stack] = field(default_factory=dict)
    secrets: dict[str, SecretBytes] = field(default_factory=dict)


class Exec:
    """`solver.Op` for one exec vertex."""

    def __init__(self, context: OpContext, op: ops.ExecOp, *, input_count: int) -> None:
        self._context = context
        self._op = op
        self._input_count = input_count

    async def cache_map(self) -> CacheMap:
        return cache_key(self._context, self._op, self._input_count)

    async def exec(self, inputs: Sequence[Result | None]) -> Sequence[Result | None]:
        stacks = [await self._context.trees.stack_of(result) for result in inputs]
        for stack in stacks:
            await self._context.trees.ensure(stack)
        async with AsyncExitStack() as cleanup:
            prepared = await self._prepare(stacks, cleanup)
            await self._run(prepared)
            results = dict(prepared.results)
            for output, (stack, layer) in prepared.layers.items():
                results[output] = (*stack, await layer.commit())
        layers = self._context.cache.layers
        return [Snapshot(layers, results[output]) for output in sorted(results)]

    # --- mounts -------------------------------------------------------------------------------------------

    async def _prepare(self, stacks: Sequence[Stack], cleanup: AsyncExitStack) -> _Prepared:
        prepared = _Prepared()
        for mount in sorted(self._op.mounts, key=lambda m: m.dest.count("/") if m.dest != "/" else -1):
            stack = stacks[mount.input] if mount.input != ops.NO_INPUT else ()
            if mount.type is ops.MountType.BIND:
                await self._prepare_bind(mount, stack, prepared, cleanup)
            elif mount.type is ops.MountType.CACHE:
                await self._prepare_cache(mount, stack, prepared, cleanup)
            elif mount.type is ops.MountType.TMPFS:
                prepared.points.append(TmpfsMount(target=mount.dest, size=mount.tmpfs_size))
            elif mount.type is ops.MountType.SECRET:
                await self._prepare_secret(mount, prepared)
            else:
                await self._prepare_ssh(mount, prepared, cleanup)
        if prepared.root is None:
            raise UserError("exec has no mount for /", hint="every exec op mounts its root file system at /")
        return prepared

    async def _prepare_bind(self, mount: ops.Mount, stack: Stack, prepared: _Prepared, cleanup: AsyncExitStack) -> None:
        layers = self._context.cache.layers
        writable = mount.output != ops.NO_OUTPUT or not mount.readonly
        if writable and not (mount.readonly and mount.dest == "/"):
            layer = await layers.create(stack, description=self._context.name)
            cleanup.push_async_callback(layer.discard)
            tree = layer.tree
            if mount.output != ops.NO_OUTPUT:
                prepared.layers[mount.output] = (stack, layer)
        else:
            tree = layers.tree(stack)
            if mount.output != ops.NO_OUTPUT:
                prepared.results[mount.output] = stack
        if mount.dest == "/":
            prepared.root, prepared.readonly_root, prepared.root_stack = tree, mount.readonly, stack
            return
        prepared.points.append(
            TreeMountPoint(target=mount.dest, tree=tree, selector=mount.selector, readonly=mount.readonly)
        )

    async def _prepare_cache(
        self, mount: ops.Mount, stack: Stack, prepared: _Prepared, cleanup: AsyncExitStack
    ) -> None:
        option = mount.cache or ops.CacheOpt(id=mount.dest)
        directory = await cleanup.enter_async_context(
            self._context.cache.cachemounts.acquire(
                option.id,
                base=stack,
                sharing=option.sharing.name.lower(),
                fresh=self._context.ignore_cache,
                open_tree=self._context.trees.open_stack,
            )
        )
        prepared.points.append(
            TreeMountPoint(
                target=mount.dest,
                tree=TreeMount(upper=str(directory)),
                selector=mount.selector,
                readonly=mount.readonly,
            )
        )

    async def _prepare_secret(self, mount: ops.Mount, prepared: _Prepared) -> None:
        option = mount.secret
        if option is None:
            raise UserError(f"secret mount at {mount.dest} names no secret")
        value = await self._context.session.secrets.get(option.id)
        if value is None:
            if option.optional:
                return
            raise UserError(f"secret {option.id}: not found", hint=f"pass it with --secret id={option.id},src=FILE")
        prepared.secrets[mount.dest] = value
        prepared.points.append(SecretFile(target=mount.dest, uid=option.uid, gid=option.gid, mode=option.mode))

    async def _prepare_ssh(self, mount: ops.Mount, prepared: _Prepared, cleanup: AsyncExitStack) -> None:
        option = mount.ssh or ops.SSHOpt(id="default")
        opened = await self._context.session.ssh_agents.open(option.id)
        if opened is None:
            if option.optional:
                return
            raise UserError(f"ssh agent {option.id!r} was not forwarded", hint="pass it with --ssh")
        path = await cleanup.enter_async_context(opened)
        prepared.points.append(BindMount(target=mount.dest, source=path, readonly=False))

    # --- the process --------------------------------------------------------------------------------------

    async def _run(self, prepared: _Prepared) -> None:
        spec, secrets = await self._spec(prepared)
        tail = bytearray()

        def on_output(stream: int, data: bytes) -> None:
            tail.extend(data)
            if len(tail) > 2 * _TAIL:
                del tail[:-_TAIL]
            self._context.reporter.log(stream, data)

        runtime = await self._context.build.runtime()
        ended = await runtime.run(spec, secrets=secrets, on_output=on_output)
        self._check(ended, bytes(tail[-_TAIL:]))

    def _check(self, ended: Exit, tail: bytes) -> None:
        meta = self._op.meta
        if not ended.signal and ended.code in (meta.valid_exit_codes or (0,)):
            return
        command = " ".join(meta.args)
        if ended.signal:
            name = signals.Signals(ended.signal).name if ended.signal in set(signals.Signals) else str(ended.signal)
            why = f"killed by signal {name}" + (" (out of memory)" if ended.oom_killed else "")
        else:
            why = f"exit code: {ended.code}" + (" (a process was killed: out of memory)" if ended.oom_killed else "")
        raise ExecFailed(
            f'process "{command}" did not complete successfully: {why}',
            argv=meta.args,
            exit_code=ended.code,
            signal=ended.signal,
            output=tail,
            hint="the step ran out of memory; raise [worker] step-memory" if ended.oom_killed else None,
        )

    async def _spec(self, prepared: _Prepared) -> tuple[ProcessSpec, dict[str, SecretBytes]]:
        op, meta, context = self._op, self._op.meta, self._context
        if prepared.root is None or not meta.args:
            raise UserError("exec has no command")
        if op.cdi_devices:
            raise HostError("CDI devices are not supported", hint="remove --device from the step")
        secret_env = await self._secret_environment()
        with context.trees.open_stack(prepared.root_stack) as root:
            identity = users.resolve(root, meta.user)
        network: Literal["host", "none"] = "none" if op.network is ops.NetMode.NONE else "host"
        return (
            ProcessSpec(
                id=step_id(),
                argv=meta.args,
                env=_environment(meta, identity.home),
                secret_env=tuple(secret_env),
                cwd=meta.cwd or "/",
                uid=identity.uid,
                gid=identity.gid,
                groups=identity.groups,
                root=prepared.root,
                readonly_root=prepared.readonly_root,
                mounts=tuple(prepared.points),
                hostname=meta.hostname or DEFAULT_HOSTNAME,
                network=network,
                insecure=op.security is ops.SecurityMode.INSECURE,
                rlimits=tuple(Rlimit(name=u.name, soft=u.soft, hard=u.hard) for u in meta.ulimits),
                limits=context.build.limits,
                cgroup_parent=meta.cgroup_parent,
                files=host_files(meta, network=network),
            ),
            prepared.secrets | secret_env,
        )

    async def _secret_environment(self) -> dict[str, SecretBytes]:
        """Values of secret variables, by variable."""
        found: dict[str, SecretBytes] = {}
        for secret in self._op.secret_env:
            value = await self._context.session.secrets.get(secret.id)
            if value is not None:
                found[secret.name] = value
            elif not secret.optional:
                raise UserError(f"secret {secret.id}: not found", hint=f"pass it with --secret id={secret.id},src=FILE")
        return found


def _environment(meta: ops.Meta, home: str) -> tuple[str, ...]:
    """The step's environment: built, never inherited."""
    env = list(meta.env)
    names = {entry.partition("=")[0] for entry in env}
    if "PATH" not in names:
        env.append(DEFAULT_PATH)
    if "HOME" not in names:
        env.append(f"HOME={home}")
    return (*env, *_proxy_variables(meta.proxy_env, names))


def _proxy_variables(proxy: ops.ProxyEnv | None, taken: set[str]) -> list[str]:
    if proxy is None:
        return []
    pairs = (
        ("HTTP_PROXY", proxy.http_proxy),
        ("HTTPS_PROXY", proxy.https_proxy),
        ("FTP_PROXY", proxy.ftp_proxy),
        ("NO_PROXY", proxy.no_proxy),
        ("ALL_PROXY", proxy.all_proxy),
    )
    spelled = [(name, value) for upper, value in pairs if value for name in (upper, upper.lower())]
    return [f"{name}={value}" for name, value in spelled if name not in taken]
