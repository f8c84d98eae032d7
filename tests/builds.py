"""Whole builds for tests: a state directory, the command or the engine on it, and what a build told, parsed.

    async def test_something(store: Store, tmp_path: Path) -> None:        # pytest_plugins = [FIXTURES]
        context = write(tmp_path / "context", {"Dockerfile": "FROM base\nCOPY a /a\nRUN cat /a\n", "a": "x"})
        first = await store.build(context)                                 # an engine in this process, opened anew
        assert first.ran == ["COPY a /a", "RUN cat /a"]
        assert first.step("RUN cat").output == "x"
        assert store.command("build", context).cached == first.ran         # the program: 0.6 s

A build is asked for with the flags of `pybuild build` in both ways. Without an output flag nothing is exported.
The image `base` of the store is busybox with all its names; it is made on the spot, no network is used.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import trio

from buildengine.cli.build import command as build_command
from buildengine.cli.contexts import locate
from buildengine.cli.progress.rawjson import encode
from buildengine.cli.request import BuildFlags, make_request
from buildengine.config import Config, load
from buildengine.daemon.engine import Engine as BuildEngine
from buildengine.daemon.engine import open_engine
from buildengine.daemon.local_session import DockerConfigCredentials, local_session
from buildengine.errors import BuildError
from buildengine.events import Event
from tests.fakes.runtime_steps import make_rootfs

FIXTURES = "tests.fakes.build_fixtures"
PYBUILD = Path(sys.executable).with_name("pybuild")

_INSTRUCTION = re.compile(r"\[(?:[^\]]* )?\d+/\d+\] (?!FROM )(.*)", re.DOTALL)
_EXPORT_FLAGS = ("-o", "--output", "-t", "--tag", "--load", "-q", "--quiet", "--iidfile", "--metadata-file")
_BASE = 'FROM scratch\nCOPY rootfs /\nCMD ["sh"]\n'

Argument = str | Path


def write(directory: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write these files below `directory`, which is made where it is missing, and return it."""
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return directory


# --- what a build told ----------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Step:
    """One vertex. `outcome`: unstarted, running, done, cached, failed or canceled, as rawjson tells them apart.

    `outcomes` are all that were told, in their order: a step may be told of more than once.
    """

    digest: str
    name: str
    inputs: tuple[str, ...] = ()
    outcome: str = "unstarted"
    outcomes: list[str] = field(default_factory=list)
    error: str = ""
    output: str = ""

    @property
    def instruction(self) -> str:
        """`RUN make` of `[stage 2/4] RUN make`; "" for what is no instruction that could run, as FROM."""
        match = _INSTRUCTION.fullmatch(self.name)
        return match[1] if match else ""


class Told:
    """The steps of a build in the order in which they were announced, from the lines of `--progress rawjson`."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self.steps: dict[str, Step] = {}
        self.warnings: list[str] = []
        self.explanations: list[dict[str, Any]] = []
        self.order: list[Step] = []  # as they ended
        for line in lines:
            self.take(line)

    def take(self, line: str) -> None:
        """One more line; one that is no JSON is something else that the command said."""
        if not line.startswith("{"):
            return
        document = json.loads(line)
        for vertex in document.get("vertexes", ()):
            self._vertex(vertex)
        for log in document.get("logs", ()):
            self.steps[log["vertex"]].output += b64decode(log["data"]).decode(errors="replace")
        self.explanations += document.get("explanations", ())
        self.warnings += [b64decode(warning["short"]).decode() for warning in document.get("warnings", ())]

    def step(self, part: str) -> Step:
        """The one step with `part` in its name."""
        found = self.find(part)
        assert len(found) == 1, (
            f"{part!r} is in {[s.name for s in found]}; all: {[s.name for s in self.steps.values()]}"
        )
        return found[0]

    def find(self, part: str) -> list[Step]:
        return [step for step in self.steps.values() if part in step.name]

    def why(self, part: str) -> dict[str, Any]:
        """The one explanation of a step with `part` in its name."""
        found = [each for each in self.explanations if part in each["name"]]
        assert len(found) == 1, f"{part!r}: {found}; all: {self.explanations}"
        return found[0]

    def reached(self, part: str, *outcomes: str) -> Step | None:
        """A step with `part` in its name that has one of these outcomes: running, if none is named."""
        return next((step for step in self.find(part) if step.outcome in (outcomes or ("running",))), None)

    def printed(self, text: str) -> Step | None:
        """A step that has printed `text`."""
        return next((step for step in self.steps.values() if text in step.output), None)

    @property
    def ran(self) -> list[str]:
        """The instructions that were executed."""
        return self.instructions("done")

    @property
    def cached(self) -> list[str]:
        return self.instructions("cached")

    def instructions(self, outcome: str) -> list[str]:
        return [s.instruction for s in self.steps.values() if s.instruction and s.outcome == outcome]

    def _vertex(self, told: dict[str, Any]) -> None:
        step = self.steps.setdefault(told["digest"], Step(digest=told["digest"], name=told["name"]))
        step.inputs, step.error = tuple(told.get("inputs", ())), told.get("error", "")
        step.outcome = _outcome(told)
        if step.outcomes[-1:] != [step.outcome]:
            step.outcomes.append(step.outcome)
        if "completed" in told and step not in self.order:
            self.order.append(step)


def _outcome(vertex: Mapping[str, Any]) -> str:
    if "completed" not in vertex:
        return "running" if "started" in vertex else "unstarted"
    error = vertex.get("error", "")
    if error:
        return "canceled" if error.endswith("context canceled") else "failed"
    return "cached" if vertex.get("cached") else "done"


class Built(Told):
    """A build that has ended. `error` is the engine's; of a command it is what it printed beside the events."""

    def __init__(self, lines: Iterable[str], *, status: int, error: str = "", stdout: str = "") -> None:
        super().__init__(lines)
        self.status = status
        self.error = error
        self.stdout = stdout


# --- a state directory ----------------------------------------------------------------------------------------


class Store:
    """A state directory of its own. `environment` is what its commands and engines get beside PATH and HOME."""

    def __init__(self, root: Path, home: Path, **environment: str) -> None:
        self.root = root
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYBUILD_ROOT": str(root), **environment}

    @property
    def config(self) -> Config:
        return load(environ=self.environment)

    # --- the program

    def command(self, *arguments: Argument, status: int = 0, **more: Any) -> Built:
        """Run `pybuild ARGUMENTS` to its end. Other than `status` is a failure of the test."""
        with self.start(*arguments, **more) as command:
            return command.wait(status=status)

    def start(self, *arguments: Argument, environment: Mapping[str, str] | None = None, **popen: Any) -> Command:
        """Start `pybuild ARGUMENTS`. Use it in a `with` block: at its end the program is killed if it still runs.

        `popen` are options of subprocess.Popen, but for `stdin`, which is what it reads: bytes.
        """
        text = [str(argument) for argument in arguments]
        if text[0] == "build":
            text = [*_build_arguments(text), *([] if "--progress" in text else ["--progress", "rawjson"])]
        return Command([str(PYBUILD), *text], env={**self.environment, **(environment or {})}, **popen)

    # --- an engine in this process

    @contextlib.asynccontextmanager
    async def engine(self) -> AsyncIterator[Engine]:
        """An engine for any number of builds. The test's process must be in a mount namespace of its own."""
        async with open_engine(self.config) as opened:
            yield Engine(opened, self.environment)

    async def build(self, context: Path, *flags: Argument, status: int = 0) -> Built:
        """One build with an engine of its own, as the command has it."""
        async with self.engine() as engine:
            return await engine.build(context, *flags, status=status)

    def copy(self, root: Path) -> Store:
        """Another state directory with the same in it. Nobody may have this one open."""
        subprocess.run(["cp", "-a", self.root, root], check=True)
        other = Store(root, Path(self.environment["HOME"]))
        other.environment = {**self.environment, "PYBUILD_ROOT": str(root)}
        return other


async def make_base(store: Store, work: Path) -> None:
    """Build the image `base` in `store`."""
    context = write(work, {"Dockerfile": _BASE})
    make_rootfs(context / "rootfs")
    await store.build(context, "-t", "base")


def _build_arguments(arguments: list[str]) -> list[str]:
    exports = any(a in _EXPORT_FLAGS or a.startswith(("--output=", "--tag=")) for a in arguments)
    return arguments if exports else [*arguments, "--output", "type=cacheonly"]


class Command(Told):
    """A running `pybuild`. What it tells is taken in while somebody waits for something."""

    def __init__(self, argv: list[str], *, stdin: bytes = b"", **popen: Any) -> None:
        super().__init__()
        self._lines: list[str] = []
        self._stdout: IO[bytes] = tempfile.TemporaryFile()
        with tempfile.TemporaryFile() as given:
            given.write(stdin)
            given.seek(0)
            self.process = subprocess.Popen(
                argv, stdin=given, stdout=self._stdout, stderr=subprocess.PIPE, text=True, **popen
            )

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self._end()
        self._stdout.close()

    def until(self, part: str, *outcomes: str) -> Step:
        """Wait until a step with `part` in its name has one of these outcomes: running, if none is named."""
        while (step := self.reached(part, *outcomes)) is None:
            self.more()
        return step

    def until_output(self, text: str) -> Step:
        """Wait until a step has printed `text`."""
        while (step := self.printed(text)) is None:
            self.more()
        return step

    def more(self) -> None:
        """Wait for another line. It fails when there is none to come."""
        assert self._read(), f"the command ended first: {self.text}"

    @property
    def text(self) -> str:
        """All that it has said on standard error, as far as it was read."""
        return "".join(self._lines)

    def wait(self, *, status: int = 0) -> Built:
        while self._read():
            pass
        self._end()
        self._stdout.seek(0)
        stdout = self._stdout.read().decode()
        rest = "".join(line for line in self._lines if not line.startswith("{"))
        ended = self.process.returncode
        assert ended == status, f"exit status {ended}, not {status}: {rest}"
        return Built(self._lines, status=ended, error=rest, stdout=stdout)

    def _read(self) -> bool:
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        self._lines.append(line)
        self.take(line)
        return bool(line)

    def _end(self) -> None:
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


class Engine:
    """An engine in this process, asked with the command's flags."""

    def __init__(self, engine: BuildEngine, environment: Mapping[str, str]) -> None:
        self.engine = engine
        self._environment = environment

    async def build(self, context: Path, *flags: Argument, status: int = 0) -> Built:
        return await self.job(context, *flags).run(status=status)

    def job(self, context: Path, *flags: Argument) -> Job:
        """A build that waits to be `run`, so that others can look at it meanwhile."""
        return Job(self, [str(context), *map(str, flags)])

    def start(self, nursery: trio.Nursery, context: Path, *flags: Argument, status: int = 0) -> Job:
        """A build that runs in `nursery`. Other than `status` fails the test there."""
        job = self.job(context, *flags)

        async def run() -> None:
            await job.run(status=status)

        nursery.start_soon(run)
        return job

    async def run(self, arguments: list[str], on_event: Callable[[Event], None]) -> None:
        parsed = build_command.make_context("build", _build_arguments(arguments), help_option_names=["-h", "--help"])
        flags = BuildFlags(**parsed.params)
        with open(os.devnull, "rb") as stdin:
            inputs = locate(flags.context, flags.file, stdin, is_needed=not flags.frontend)
        request = make_request(flags, inputs, self._environment)
        credentials = DockerConfigCredentials(Path(self._environment["HOME"], ".docker/config.json"), self._environment)
        session = local_session(request, credentials=credentials, environment=self._environment)
        await self.engine.build(request, session, on_event)


class Job(Told):
    """One build of an engine."""

    def __init__(self, engine: Engine, arguments: list[str]) -> None:
        super().__init__()
        self._engine = engine
        self._arguments = arguments
        self._lines: list[str] = []
        self._told = trio.Event()
        self.scope = trio.CancelScope()
        self.built: Built | None = None

    async def run(self, *, status: int = 0) -> Built:
        """To its end. An error that is not expected is raised; a cancelled one has status 130."""
        code, error = 130, "canceled"
        try:
            with self.scope:
                await self._engine.run(self._arguments, self._event)
                code, error = 0, ""
        except BuildError as failure:
            if failure.exit_status != status:
                raise
            code, error = failure.exit_status, str(failure)
        assert code == status, f"exit status {code}, not {status}"
        self.built = Built(self._lines, status=code, error=error)
        self._wake()
        return self.built

    def cancel(self) -> None:
        self.scope.cancel()

    async def until(self, part: str, *outcomes: str) -> Step:
        """Wait until a step with `part` in its name has one of these outcomes: running, if none is named."""
        while (step := self.reached(part, *outcomes)) is None:
            await self._more()
        return step

    async def until_output(self, text: str) -> Step:
        """Wait until a step has printed `text`."""
        while (step := self.printed(text)) is None:
            await self._more()
        return step

    async def _more(self) -> None:
        assert self.built is None, "the build ended first"
        await self._told.wait()

    async def wait(self) -> Built:
        while self.built is None:
            await self._told.wait()
        return self.built

    def _event(self, event: Event) -> None:
        line = encode(event)
        self._lines.append(line)
        self.take(line)
        self._wake()

    def _wake(self) -> None:
        self._told.set()
        self._told = trio.Event()
