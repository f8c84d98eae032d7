"""Running an exec op: one process in a new layer on its root, with its mounts.

What is decided is data (`ProcessSpec`); `worker.runtime` acts on it. When the process ends well the layers that it
wrote are committed, otherwise they are thrown away.
"""

from __future__ import annotations

import signal as signals
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Literal

from buildengine.errors import ExecFailed, HostError, NotGiven, UserError
from buildengine.platform import DEFAULT_PATH
from llb import ops
from llb.outputs import exec_outputs
from solver.vertex import Result
from worker.context import OpContext, step_id
from worker.failures import Failed
from worker.ops import users
from worker.ops.clipping import Clipping
from worker.ops.hostfiles import host_files
from worker.ops.stepmounts import Prepared, StepMounts
from worker.results import Snapshot
from worker.runtime import runnable
from worker.runtime.emulation import How
from worker.runtime.runtime import Exit, Runtime
from worker.runtime.spec import DEFAULT_HOSTNAME, ProcessSpec, Rlimit
from worker.session import SecretBytes

TAIL = 16 << 10  # how much of a failed step's output its error carries


class Step:
    """One run of one exec op."""

    def __init__(self, context: OpContext, op: ops.ExecOp) -> None:
        self._context = context
        self._op = op
        self.is_bound = True  # see `solver.vertex.Op`

    async def run(self, inputs: Sequence[Result | None]) -> Sequence[Result | None]:
        how = runnable.choose(self._context.platform, directory=self._context.build.emulators)
        runtime = await self._context.build.runtime()  # its launcher gets ready while the trees do
        stacks = [await self._context.trees.stack_of(result) for result in inputs]
        for stack in stacks:
            await self._context.trees.ensure(stack)
        async with AsyncExitStack() as cleanup:
            prepared = await StepMounts(self._context, self._op, cleanup).prepare(stacks)
            try:
                await self._run(runtime, prepared, how)
            except ExecFailed:
                if self._context.build.failures.wanted:
                    await self._keep(inputs, prepared)
                raise
            results = dict(prepared.results)
            for position, (stack, layer) in prepared.layers.items():
                results[position] = (*stack, await layer.commit())
        layers = self._context.cache.layers
        return [Snapshot(layers, results[position]) for position in exec_outputs(self._op)]

    async def _keep(self, inputs: Sequence[Result | None], prepared: Prepared) -> None:
        """The state of the failed step, for whoever asks."""
        layers = self._context.cache.layers
        written = prepared.layers | prepared.thrown_away
        before: list[Result | None] = []
        after: list[Result | None] = []
        for position, mount in enumerate(self._op.mounts):
            given = inputs[mount.input] if mount.input != ops.NO_INPUT else None
            before.append(given.clone() if given is not None else None)
            if position in written:
                stack, layer = written[position]
                after.append(Snapshot(layers, (*stack, await layer.commit())))
            else:
                after.append(given.clone() if given is not None else None)
        failed = Failed(inputs=tuple(before), mounts=tuple(after))
        self._context.build.failures.keep(self._context.reporter.vertex, failed)

    async def _run(self, runtime: Runtime, prepared: Prepared, how: How) -> None:
        spec, secrets = await self.spec(prepared, how)
        self.is_bound = any(mount.type is ops.MountType.SSH for mount in self._op.mounts)
        tail = bytearray()
        streams = {number: Clipping(self._context.build.output) for number in (1, 2)}
        log = self._context.reporter.log

        def on_output(stream: int, data: bytes) -> None:
            tail.extend(data)
            if len(tail) > 2 * TAIL:
                del tail[:-TAIL]
            if told := streams[stream].told(data):
                log(stream, told)

        try:
            ended = await runtime.run(spec, secrets=secrets, on_output=on_output, locks=prepared.locks)
            check_exit(self._op.meta, ended, bytes(tail[-TAIL:]), how)
        except UserError as error:
            if not error.message.startswith("exec: "):
                raise
            raise UserError(_failed(self._op.meta, error.message), hint=error.hint) from error
        except ExecFailed:
            for number, stream in streams.items():
                if end := stream.end():
                    log(number, end)
            raise

    async def spec(self, prepared: Prepared, how: How) -> tuple[ProcessSpec, dict[str, SecretBytes]]:
        """What is run, and its secrets. Raises UserError, HostError."""
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
                groups=identity.all_groups,
                root=prepared.root,
                readonly_root=prepared.readonly_root,
                mounts=tuple(prepared.points),
                hostname=meta.hostname or DEFAULT_HOSTNAME,
                network=network,
                insecure=op.security is ops.SecurityMode.INSECURE,
                rlimits=tuple(Rlimit(name=u.name, soft=u.soft, hard=u.hard) for u in meta.ulimits),
                limits=context.build.limits,
                cgroup_parent=meta.cgroup_parent,
                files=host_files(meta, network=network, dns=context.build.dns),
                emulator=how.emulator,
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
                raise NotGiven(f"secret {secret.id}: not found", hint=f"pass it with --secret id={secret.id},src=FILE")
        return found


def check_exit(meta: ops.Meta, ended: Exit, tail: bytes, how: How) -> None:
    """Raises ExecFailed unless the process has ended as it should; `tail` is the end of its output."""
    if not ended.signal and ended.code in (meta.valid_exit_codes or (0,)):
        return
    if ended.signal:
        name = signals.Signals(ended.signal).name if ended.signal in set(signals.Signals) else str(ended.signal)
        why = f"killed by signal {name}" + (" (out of memory)" if ended.oom_killed else "")
    else:
        why = f"exit code: {ended.code}" + (" (a process was killed: out of memory)" if ended.oom_killed else "")
    raise ExecFailed(
        _failed(meta, why),
        argv=meta.args,
        exit_code=ended.code,
        signal=ended.signal,
        output=tail,
        hint=_hint(ended, how),
    )


def _failed(meta: ops.Meta, why: str) -> str:
    """As BuildKit says it: clients look for it."""
    return f'process "{" ".join(meta.args)}" did not complete successfully: {why}'


def _hint(ended: Exit, how: How) -> str | None:
    if ended.oom_killed:
        return "the step ran out of memory; raise [worker] step-memory"
    if how.emulator is not None:  # nobody can know whether that is why
        return (
            "the step ran emulated, in a user namespace of its own: if making device files, ports below 1024 or raw "
            "sockets (ping) were refused to it, register qemu on the host, where they work"
        )
    return None


def _environment(meta: ops.Meta, home: str) -> tuple[str, ...]:
    """The step's environment: built, never inherited."""
    env = list(meta.env)
    names = {entry.partition("=")[0] for entry in env}
    if "PATH" not in names:
        env.append(f"PATH={DEFAULT_PATH}")
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
