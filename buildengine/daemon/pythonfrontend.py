"""Frontends written in Python, run in a sandbox: a build file, or a package that is installed beside us.

    python.v0     the build file that the option `filename` names, in the client's directory `dockerfile`
    NAME          an entry point of the group `pybuild.frontends`

The process is a step of our own runtime: namespaces of its own, no network, no file of the host but this interpreter
with its libraries, read-only, no privilege, and limits of memory, processes, processor time and output. It speaks the
gateway's protocol on its standard input and nothing else. `buildengine.client.buildfile` is what runs in there.
"""

from __future__ import annotations

import json
import signal as signals
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import trio

from buildengine.api import rpc
from buildengine.api.daemon import WorkerInfo
from buildengine.config import WorkerConfig
from buildengine.daemon.bridge import Bridge
from buildengine.daemon.framedcalls import Bounds, FramedCalls, Patience
from buildengine.daemon.gateway import LocalGateway
from buildengine.daemon.hosted import hosted
from buildengine.daemon.installed import Package
from buildengine.errors import InternalError, UserError
from buildengine.units import show_binary_size
from buildengine.values import dataclass
from cache.overlay import TreeMount
from frontends.gateway import FrontendRequest, FrontendResult, Gateway
from solver.reporter import Reporter
from worker.context import step_id
from worker.layers.outcome import one_error
from worker.ops.clipping import Clipping, OutputLimits
from worker.runtime.interpreter import interpreter
from worker.runtime.runtime import Exit, Runtime
from worker.runtime.spec import BindMount, ProcessSpec, Rlimit, StepLimits, TmpfsMount

_DEFAULT = "build.py"
_REQUEST = "/run/pybuild/request.json"  # buildengine.client.buildfile
_BOOT = "import sys; sys.path[:] = sys.argv.pop(1).split(':'); from buildengine.client.buildfile import main; main()"
_PACKAGES = "/frontend"  # where a package is that is installed from where it is developed
_NOBODY = 65534
_PROCESSES = 1024  # of its user on this host: where no control group counts those of one build file
_PATIENCE = 2.0  # seconds for the process to end once it has had its last word
_TAIL = 4 << 10
_HEADROOM = 64 << 20  # bytes of memory that are not the process's own data


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one process. `memory` and `output` in bytes."""

    memory: int = 512 << 20
    pids: int = 64
    output: int = 4 << 20
    temporary: int = 64 << 20
    cpu_seconds: int = 300
    bounds: Bounds = Bounds()

    @classmethod
    def of(cls, config: WorkerConfig) -> Limits:
        return cls(memory=config.build_file_memory, bounds=Bounds(seconds=config.build_file_seconds))


class PythonFrontend:
    """`frontends.gateway.Frontend`. `package` is an installed one, None for a build file."""

    def __init__(
        self,
        runtime: Callable[[], Awaitable[Runtime]],
        worker: Callable[[], WorkerInfo],
        limits: Limits,
        package: Package | None = None,
    ) -> None:
        self._runtime = runtime
        self._worker = worker
        self._limits = limits
        self._package = package

    async def build(self, gateway: Gateway, request: FrontendRequest) -> FrontendResult:
        """Raises BuildError: what the build file says went wrong, or what it did."""
        if not isinstance(gateway, LocalGateway):
            raise InternalError("a build file runs beside an engine only")
        name = f"frontend {self._package.name}" if self._package else _filename(request)
        with gateway.show(f"[internal] run {name}") as reporter:
            spec = _spec(self._limits, _asked(request, self._package), self._package)
            run = _Run(self._limits, reporter, output=gateway.output_limits, spec=spec)
            return await hosted(gateway, request, self._worker, partial(self._carry, run), patience=_PATIENCE)

    async def _carry(self, run: _Run, services: rpc.Services, bridge: Bridge) -> None:
        await run.carry(await self._runtime(), services)
        if not bridge.said.is_set():
            raise UserError("the process of the build file has ended, and has not said anything")


class _Run:
    """One process, from its start to its end."""

    def __init__(self, limits: Limits, reporter: Reporter, *, output: OutputLimits, spec: ProcessSpec) -> None:
        self._limits = limits
        self._reporter = reporter
        self._spec = spec
        self._clippings = {number: Clipping(output) for number in (1, 2)}
        self._output = 0
        self._tail = bytearray()
        self._flooded = trio.Event()

    async def carry(self, runtime: Runtime, services: rpc.Services) -> None:
        """Until it has ended. Raises BuildError unless it ended well."""
        patience = Patience(self._limits.bounds.seconds)
        ours, theirs = socket.socketpair()
        async with trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as stream:
            calls = FramedCalls(stream, services, self._limits.bounds, patience)
            with one_error():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(calls.run)
                    nursery.start_soon(self._stop_flood)
                    with patience.scope:
                        ended = await runtime.run(
                            self._spec, secrets={}, on_output=self._heard, stdin=theirs.detach(), is_last=True
                        )
                        await calls.over.wait()  # what is wrong with what it has said counts more than how it ended
                    nursery.cancel_scope.cancel()
        if patience.scope.cancelled_caught:
            seconds = self._limits.bounds.seconds
            raise UserError(
                f"the build file has kept the engine waiting for {seconds:g} seconds",
                hint="an endless loop? [worker] build-file-seconds allows more",
            )
        self._check(ended)
        if not calls.is_whole:
            raise UserError("the build file has closed its end in the middle of a message")

    def _heard(self, stream: int, data: bytes) -> None:
        self._output += len(data)
        self._tail = (self._tail + data)[-_TAIL:]
        if told := self._clippings[stream].told(data):
            self._reporter.log(stream, told)
        if self._output > self._limits.output:
            self._flooded.set()

    async def _stop_flood(self) -> None:
        await self._flooded.wait()
        raise UserError(f"the build file has printed more than {show_binary_size(self._limits.output)}")

    def _check(self, ended: Exit) -> None:
        if not ended.signal and not ended.code and not ended.oom_killed:
            return
        memory = show_binary_size(self._limits.memory)
        if ended.oom_killed:
            raise UserError(
                f"the build file used more memory than {memory}", hint="[worker] build-file-memory allows more"
            )
        if ended.signal == signals.SIGXCPU:
            raise UserError(f"the build file used more than {self._limits.cpu_seconds} seconds of processor time")
        name = signals.Signals(ended.signal).name if ended.signal in set(signals.Signals) else str(ended.signal)
        how = f"was killed by {name}" if ended.signal else f"ended with exit code {ended.code}"
        last = bytes(self._tail).decode(errors="replace").strip().rpartition("\n")[2]
        raise UserError(f"the process of the build file {how}", hint=f"its last words: {last}" if last else None)


def _mount(location: Path) -> BindMount:
    return BindMount(target=f"{_PACKAGES}/{location.name}", source=str(location), readonly=True)


def _filename(request: FrontendRequest) -> str:
    return request.options.get("filename") or _DEFAULT


def _asked(request: FrontendRequest, package: Package | None) -> bytes:
    """What the process is told of the request."""
    options = dict(request.options) if package else {**request.options, "filename": _filename(request)}
    return json.dumps({
        "options": options,
        "platforms": [each.to_json() for each in request.platforms],
        "build_platform": request.build_platform.to_json(),
        "session": request.session,
        "has_inputs": bool(request.inputs),
        "entry_point": package.entry_point if package else "",
    }).encode()  # fmt: skip


def _spec(limits: Limits, asked: bytes, package: Package | None) -> ProcessSpec:
    python = interpreter()
    own = (_mount(package.location),) if package and not python.has(package.location) else ()
    paths = (*python.paths, _PACKAGES) if own else python.paths
    data = limits.memory - _HEADROOM
    return ProcessSpec(
        id=step_id(),
        argv=(*python.argv, "-c", _BOOT, ":".join(paths)),
        root=TreeMount(lowers=()),
        readonly_root=True,
        env=("HOME=/tmp", "PATH=/nowhere"),
        uid=_NOBODY,
        gid=_NOBODY,
        unprivileged=True,
        mounts=(
            *python.mounts,
            *own,
            TmpfsMount(target="/tmp", size=limits.temporary, options=("nosuid", "nodev", "noexec")),
        ),
        files={_REQUEST: asked},
        network="none",
        hostname="pybuild",
        rlimits=(
            Rlimit(name="data", soft=data, hard=data),
            Rlimit(name="cpu", soft=limits.cpu_seconds, hard=limits.cpu_seconds + 1),
            Rlimit(name="core", soft=0, hard=0),
            Rlimit(name="nproc", soft=_PROCESSES, hard=_PROCESSES),
            Rlimit(name="nofile", soft=256, hard=256),
        ),
        limits=StepLimits(memory=limits.memory, pids=limits.pids, cpus=1, is_needed=False),
    )
