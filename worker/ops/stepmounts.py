"""A step's mounts, made ready: layers to write to, trees to look at, cache mounts, secrets, agents.

Everything that is opened here is closed by the caller's exit stack, also when a later mount fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import field, replace

from buildengine.errors import NotGiven, UserError
from buildengine.values import dataclass
from cache.layers import NewLayer
from cache.overlay import TreeMount
from llb import ops, paths
from worker.context import OpContext, step_id
from worker.results import Stack
from worker.runtime.spec import BindMount, Mount, SecretFile, TmpfsMount, TreeMountPoint
from worker.session import SecretBytes


@dataclass(slots=True)
class Prepared:
    """What has been made ready for one run, by the position of the mount: `layers` become results, `results` are, what
    is written to those `thrown_away` is nobody's result.

    `locks` (descriptors) are to be held as long as a process of the step lives.
    """

    points: list[Mount] = field(default_factory=list)
    root: TreeMount | None = None
    readonly_root: bool = False
    root_stack: Stack = ()
    layers: dict[int, tuple[Stack, NewLayer]] = field(default_factory=dict)
    thrown_away: dict[int, tuple[Stack, NewLayer]] = field(default_factory=dict)
    results: dict[int, Stack] = field(default_factory=dict)
    secrets: dict[str, SecretBytes] = field(default_factory=dict)
    locks: tuple[int, ...] = ()


class StepMounts:
    """Prepares the mounts of one exec op. `cleanup` outlives the step."""

    def __init__(self, context: OpContext, op: ops.ExecOp, cleanup: AsyncExitStack) -> None:
        self._context = context
        self._op = op
        self._cleanup = cleanup
        self._owner = step_id()

    def _placed(self) -> list[ops.Mount]:
        """The mounts; a relative destination starts at the step's directory (executor/oci/spec.go)."""
        cwd = self._op.meta.cwd
        return [replace(m, dest=paths.resolve(cwd, m.dest)) if m.dest else m for m in self._op.mounts]

    async def prepare(self, stacks: Sequence[Stack]) -> Prepared:
        """All mounts, outer ones first; `stacks` are the op's inputs. Raises UserError."""
        prepared = Prepared()
        for position, mount in sorted(enumerate(self._placed()), key=lambda numbered: _depth(numbered[1])):
            stack = stacks[mount.input] if mount.input != ops.NO_INPUT else ()
            if mount.type is ops.MountType.BIND:
                await self._bind(position, mount, stack, prepared)
            elif mount.type is ops.MountType.CACHE:
                await self._cache(position, mount, stack, prepared)
            elif mount.type is ops.MountType.TMPFS:
                prepared.points.append(TmpfsMount(target=mount.dest, size=mount.tmpfs_size))
            elif mount.type is ops.MountType.SECRET:
                await self._secret(mount, prepared)
            else:
                await self._ssh(mount, prepared)
        prepared.locks = self._context.cache.cachemounts.locks(self._owner)
        if prepared.root is None:
            raise UserError("exec has no mount for /", hint="every exec op mounts its root file system at /")
        return prepared

    async def _bind(self, position: int, mount: ops.Mount, stack: Stack, prepared: Prepared) -> None:
        layers = self._context.cache.layers
        writable = mount.output != ops.NO_OUTPUT or not mount.readonly
        if writable and not (mount.readonly and mount.dest == "/"):
            layer = await layers.create(stack, description=self._context.name)
            self._cleanup.push_async_callback(layer.discard)
            tree = layer.tree
            kept = prepared.layers if mount.output != ops.NO_OUTPUT else prepared.thrown_away
            kept[position] = (stack, layer)
        else:
            tree = layers.tree(stack)
            if mount.output != ops.NO_OUTPUT:
                prepared.results[position] = stack
        if mount.dest == "/":
            prepared.root, prepared.readonly_root, prepared.root_stack = tree, mount.readonly, stack
            return
        prepared.points.append(
            TreeMountPoint(target=mount.dest, tree=tree, selector=mount.selector, readonly=mount.readonly)
        )

    async def _cache(self, position: int, mount: ops.Mount, stack: Stack, prepared: Prepared) -> None:
        option = mount.cache or ops.CacheOpt(id=mount.dest)
        directory = await self._cleanup.enter_async_context(
            self._context.cache.cachemounts.acquire(
                option.id,
                base=stack,
                sharing=option.sharing.name.lower(),
                open_tree=self._context.trees.open_stack,
                owner=self._owner,
            )
        )
        prepared.results[position] = stack  # what others see is the base: the cache is nobody's result
        prepared.points.append(
            TreeMountPoint(
                target=mount.dest,
                tree=TreeMount(upper=str(directory)),
                selector=mount.selector,
                readonly=mount.readonly,
            )
        )

    async def _secret(self, mount: ops.Mount, prepared: Prepared) -> None:
        option = mount.secret
        if option is None:
            raise UserError(f"secret mount at {mount.dest} names no secret")
        value = await self._context.session.secrets.get(option.id)
        if value is None:
            if option.optional:
                return
            raise NotGiven(f"secret {option.id}: not found", hint=f"pass it with --secret id={option.id},src=FILE")
        prepared.secrets[mount.dest] = value
        prepared.points.append(SecretFile(target=mount.dest, uid=option.uid, gid=option.gid, mode=option.mode))

    async def _ssh(self, mount: ops.Mount, prepared: Prepared) -> None:
        option = mount.ssh or ops.SSHOpt(id="default")
        opened = await self._context.session.ssh_agents.open(option.id)
        if opened is None:
            if option.optional:
                return
            name = option.id or "default"
            raise NotGiven(f'no SSH key "{name}" forwarded from the client', hint=f"pass it with --ssh {name}")
        from worker.ops.agentsocket import agent_socket

        agent = await self._cleanup.enter_async_context(opened)
        cache = self._context.cache
        own = agent_socket(agent, option, spool=cache.root / "ingest", owner=cache.lease.id)
        path = await self._cleanup.enter_async_context(own)
        prepared.points.append(BindMount(target=mount.dest, source=path, readonly=False))


def _depth(mount: ops.Mount) -> int:
    return mount.dest.count("/") if mount.dest != "/" else -1
