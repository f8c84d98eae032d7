"""Containers for a build's client: the mounts of an exec op, made ready once, and any number of processes in them.

What they write is nobody's result: it goes when the container does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from types import MappingProxyType

from buildengine.digest import Digest
from buildengine.platform import Platform
from llb import ops
from solver.reporter import Reporter
from solver.vertex import Result
from worker.context import BuildContext, OpContext
from worker.ops.step import TAIL, Step, check_exit
from worker.ops.stepmounts import Prepared, StepMounts
from worker.runtime import runnable
from worker.runtime.container import Container, Process
from worker.runtime.emulation import How
from worker.runtime.runtime import Exit
from worker.runtime.spec import SecretFile
from worker.session import SecretBytes
from worker.worker import check_allowed

_NO_FILES: Mapping[str, bytes] = MappingProxyType({})
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

    def check_exit(self, op: ops.ExecOp, ended: Exit, output: bytes) -> None:
        """Raises ExecFailed, with the end of its output, unless a process of `op` has ended well."""
        check_exit(op.meta, ended, output[-TAIL:], self._how)


@asynccontextmanager
async def open_container(
    build: BuildContext,
    op: ops.ExecOp,
    inputs: Sequence[Result | None],
    *,
    platform: Platform,
    name: str,
    files: Mapping[str, bytes] = _NO_FILES,
) -> AsyncIterator[ClientContainer]:
    """A container of `op`'s mounts, network and hosts; leaving the block kills what is in it. Raises BuildError.

    `files` are there besides, by their paths, for root to read. A platform without an architecture is that of this
    machine: it says what PATH is where nobody else does.
    """
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
        for path, data in files.items():
            prepared.points.append(SecretFile(target=path))
            prepared.secrets[path] = SecretBytes(data)
        container = await cleanup.enter_async_context(runtime.open_container())
        yield ClientContainer(context, op, prepared, how, container)
