"""A build to be killed: it passes every trace point, and has steps that run until they are let go.

    site = Site(store_with_base, tmp_path)
    with site.watched() as watch:
        with site.start(watch, *site.arguments(held=True)) as build:
            site.until_held(watch, build)
            build.process.kill()
        site.recover(watch)                       # nothing is left, the next build succeeds, the store verifies

What runs in a held step has `site.marker` in its own command line, as the argument of `sleep`. A held step waits
only when the secret `go` is missing: secrets are in no cache key, so the next build is the same build.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.builds import PYBUILD, Command, Store, write
from tests.fakes import leftovers
from tests.fakes.commands import Commands

_HOLD = "[ -s /run/secrets/go ] ||"
SLEEPERS = 5  # processes of the held steps that sleep in the end
_MOUNT = "RUN --mount=type=secret,id=go,mode=0444"
_DOCKERFILE = f"""\
FROM crash AS tools
RUN mkdir /suid && cp /bin/busybox /suid/sleep && chmod 4755 /suid/sleep
FROM tools AS setid
USER 1000
{_MOUNT} echo held-setid {{id}}; {_HOLD} exec /suid/sleep {{marker}}
FROM crash AS daemons
{_MOUNT} echo held-daemons {{id}}; {_HOLD} {{{{ trap '' HUP INT TERM; \
    setsid sleep {{marker}} & (setsid sh -c 'sleep {{marker}} & sleep {{marker}}') & sleep {{marker}}; }}}}
FROM crash AS files
COPY --link files /files
RUN rm -r /files/d3 && echo {{id}} > /files/d1/f1 && mkfifo /files/pipe
RUN --mount=type=cache,id={{id}},target=/cache,from=tools,source=/etc echo x >> /cache/log && cp /cache/log /log
FROM files
COPY --from=daemons /etc/passwd /daemons
COPY --from=setid /etc/passwd /setid
"""


class Site:
    """One state directory, one context, and the build of it.

    `commands` start what is to end well, in milliseconds; a `thorough` site starts the program itself each time.
    """

    def __init__(
        self,
        template: Store,
        place: Path,
        *,
        commands: Commands | None = None,
        root: Path | None = None,
        runtime: str = "builtin",
        thorough: bool = False,
        **environment: str,
    ) -> None:
        self.place = place
        self._commands = None if thorough else commands
        self.store = template.copy(root or place / "root")
        self.store.environment |= {"PYBUILD_WORKER_RUNTIME": runtime, "TMPDIR": str(place / "tmp")} | environment
        self.marker = ""
        (place / "tmp").mkdir()
        (place / "go").write_text("go")
        self.vary(0)

    def vary(self, number: int) -> None:
        """Another build: everything but the base is to be made anew."""
        self.marker = f"86399.{secrets.randbelow(10**12):012}"
        files = {f"files/d{n % 5}/f{n}": f"{number} {n}\n" * 200 for n in range(40)}
        dockerfile = _DOCKERFILE.format(marker=self.marker, id=f"{number}-{self.marker}")
        write(self.place / "context", {"Dockerfile": dockerfile, **files})

    def arguments(self, *, held: bool) -> list[str]:
        flags = ["-t", "made", "-o", f"type=oci,dest={self.place}/made.tar", "-o", "type=image"]
        flags += ["--iidfile", f"{self.place}/id", "--progress", "rawjson"]
        secret = [] if held else ["--secret", f"id=go,src={self.place}/go"]
        return ["build", *flags, *secret, str(self.place / "context")]

    @contextmanager
    def watched(self) -> Iterator[leftovers.Watch]:
        with leftovers.watch(self.place, marker=self.marker) as watch:
            yield watch

    def start(
        self, watch: leftovers.Watch, *arguments: str, environment: Mapping[str, str] | None = None, **popen: object
    ) -> Command:
        """`pybuild ARGUMENTS` where its processes are watched."""
        argv = watch.enclosed([str(PYBUILD), *arguments])
        command = Command(argv, env={**self.store.environment, **(environment or {})}, **popen)
        watch.engine(command.process.pid)
        return command

    def until_held(self, watch: leftovers.Watch, build: Command) -> None:
        """Wait until both held steps run all that they will run."""
        for name in ("held-setid", "held-daemons"):
            build.until_output(name)
        assert leftovers.until(lambda: len(self.sleepers(watch)) == SLEEPERS), self.sleepers(watch)

    def sleepers(self, watch: leftovers.Watch) -> list[int]:
        """The processes of held steps that have come to their `sleep`."""
        wanted = f"sleep\0{self.marker}\0".encode()
        return [pid for pid in watch.members() if leftovers.command_line(pid).endswith(wanted)]

    def rebuild(self) -> None:
        """The same build, with nothing in its way."""
        self.run(*self.arguments(held=False))

    def length(self) -> float:
        """How long the program takes for the whole build, in seconds; after it, all of the build is cached."""
        started = time.monotonic()
        self.store.command(*self.arguments(held=False))
        return time.monotonic() - started

    def run(self, *arguments: str) -> None:
        """`pybuild ARGUMENTS` to its good end."""
        if self._commands is None:
            self.store.command(*arguments)
            return
        ended = self._commands.run(*arguments, environment=self.store.environment)
        assert ended.status == 0, ended.text

    def step_processes(self, watch: leftovers.Watch) -> list[int]:
        """The processes of held steps: all that was started from their command lines."""
        return [pid for pid in watch.members() if self.marker.encode() in leftovers.command_line(pid)]

    def recover(self, watch: leftovers.Watch, *, at_once: bool = True) -> None:
        """What must be true after any end of a build: nothing is left; the next one succeeds; the store is sound.

        `at_once`: nothing is left even before the next one.
        """
        if at_once:
            _assert_nothing(watch.remaining())
        self.rebuild()
        _assert_nothing(watch.remaining())
        _assert_nothing(self.strange_files())
        self.verify()

    def verify(self) -> None:
        self.run("debug", "verify-store")

    def strange_files(self) -> list[str]:
        """In the store and where the build puts its results: what no living command can need."""
        expected = {"root", "tmp", "go", "context", "made.tar", "id"}
        beside = sorted({path.name for path in self.place.iterdir()} - expected)
        return [*leftovers.files(self.store.root), *beside, *(str(path) for path in (self.place / "tmp").iterdir())]


NewSite = Callable[..., Site]  # with keyword arguments of its `__init__`


def send(pids: Iterable[int], number: int) -> None:
    """A signal to each, where it still lives."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _assert_nothing(left: list[str]) -> None:
    assert left == [], "left behind: " + "\n".join(left)
