"""Containers for a build's client: the mounts of an exec op, made ready once, and any number of processes in them.

And one process that somebody talks to. What they write is nobody's result: it goes when they do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from buildengine.digest import Digest
from buildengine.platform import Platform
from buildengine.values import dataclass
from llb import ops
from solver.reporter import Reporter
from solver.vertex import Result
from worker.context import BuildContext, OpContext
from worker.ops.step import TAIL, Step, check_exit
from worker.ops.stepmounts import Prepared, StepMounts
from worker.runtime import runnable
from worker.runtime.container import Container, Process
from worker.runtime.emulation import How
from worker.runtime.runtime import Runtime
from worker.runtime.spec import SecretFile
from worker.session import SecretBytes
from worker.worker import check_allowed

_WINDOWS_PATH = r"c:\Windows\System32;c:\Windows;C:\Windows\System32\WindowsPowerShell\v1.0"  # util/system


class ClientContainer:
    """Made by `open_container`."""

    def __init__(self, context: OpContext, op: ops.ExecOp, prepared: Prepared, how: How, container: Container) -> None:
        self._context = context
        self._op = op
        self._prepared = prepared
        self._how = how
        self._container = container

    async def start(self, op: ops.ExecOp, *, terminal: bool, stdin: bool) -> Process:
        """A process of `op`'s command, user, secrets and privileges; the first one is PID 1. Raises BuildError."""
        ours = self._op
        meta = replace(op.meta, hostname=ours.meta.hostname, extra_hosts=ours.meta.extra_hosts)
        defaults = {"PATH": _WINDOWS_PATH} if self._context.platform.os == "windows" else {}
        if terminal:
            defaults["TERM"] = "xterm"
        given = {entry.partition("=")[0] for entry in meta.env}
        added = [f"{name}={value}" for name, value in defaults.items() if name not in given]
        meta = replace(meta, env=(*meta.env, *added))
        wanted = replace(ours, meta=meta, security=op.security, secret_env=op.secret_env)
        check_allowed(self._context.build, wanted)
        spec, secrets = await Step(self._context, wanted).spec(self._prepared, self._how)
        spec = replace(spec, terminal=terminal)
        return await self._container.start(spec, secrets=secrets, stdin=stdin, locks=self._prepared.locks)


@asynccontextmanager
async def open_container(
    build: BuildContext, op: ops.ExecOp, inputs: Sequence[Result | None], *, platform: Platform, name: str
) -> AsyncIterator[ClientContainer]:
    """A container of `op`'s mounts, network and hosts; leaving the block kills what is in it. Raises BuildError.

    A platform without an architecture is that of this machine: it says what PATH is where nobody else does.
    """
    async with _prepared(build, op, inputs, platform, name) as ready, ready.runtime.open_container() as container:
        yield ClientContainer(ready.context, op, ready.prepared, ready.how, container)


async def run_attended(
    build: BuildContext, op: ops.ExecOp, inputs: Sequence[Result | None], *, platform: Platform, attendant: Attendant
) -> None:
    """`op`'s process, to its end, while somebody talks to it. Raises ExecFailed unless it ends well, and BuildError."""
    async with _prepared(build, op, inputs, platform, attendant.name) as ready:
        for path, data in attendant.files.items():
            ready.prepared.points.append(SecretFile(target=path))
            ready.prepared.secrets[path] = SecretBytes(data)
        spec, secrets = await Step(ready.context, op).spec(ready.prepared, ready.how)
        tail = bytearray()

        def on_output(_: int, data: bytes) -> None:
            tail.extend(data)
            del tail[:-TAIL]
            attendant.on_error(data)

        stdin, stdout = attendant.open()
        locks = ready.prepared.locks
        ended = await ready.runtime.run(
            spec, secrets=secrets, on_output=on_output, locks=locks, stdin=stdin, stdout=stdout
        )
        check_exit(op.meta, ended, bytes(tail), ready.how)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attendant:
    """Who talks to a process: `open` is called when it is about to start, and gives its standard input and output, ends
    of two pipes that are the runtime's from then on. What it prints on standard error goes to `on_error`. `files` are
    there besides, by their paths, for root to read."""

    name: str
    open: Callable[[], tuple[int, int]]
    on_error: Callable[[bytes], None]
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """All that a process in these mounts needs but what it is to be."""

    context: OpContext
    prepared: Prepared
    how: How
    runtime: Runtime


@asynccontextmanager
async def _prepared(
    build: BuildContext, op: ops.ExecOp, inputs: Sequence[Result | None], platform: Platform, name: str
) -> AsyncIterator[_Ready]:
    check_allowed(build, op)
    how = How(kind="native")
    if platform.architecture:
        how = runnable.choose(platform, directory=build.emulators)
    runtime = await build.runtime()
    stacks = [await build.trees.stack_of(result) for result in inputs]
    for stack in stacks:
        await build.trees.ensure(stack)
    context = OpContext(build=build, reporter=Reporter(Digest.sha256(name.encode())), platform=platform, name=name)
    async with AsyncExitStack() as cleanup:
        prepared = await StepMounts(context, op, cleanup).prepare(stacks)
        yield _Ready(context=context, prepared=prepared, how=how, runtime=runtime)
