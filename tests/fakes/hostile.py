"""An attack on the program, and how it must end: refused, said clearly, with nothing touched outside.

    attack.build("FROM base\\nCOPY ../../etc/shadow /x\\n").refused("'/etc/shadow': not found", line=2)

All attacks of a test run share one state directory, which holds the image `base`. Whatever a command prints must be
safe to look at, whatever it does must leave the canary and this host's own files as they are.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes.commands import Commands, Ended

Put = str | bytes | Callable[[Path], object]
"""What stands at a path of a build context: contents, or a function that makes something else there."""

_LARGE = 1 << 20
_UNSAFE = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]")  # what acts on a terminal; \r would, too
WANTED = "tmp/pybuild-canary"  # a path of this host, from its root, where nothing is: attacks try to make it
_HOST = (
    *("/etc/passwd", "/etc/shadow", "/etc/hosts", "/etc/resolv.conf", "/etc/ld.so.preload"),
    *(sys.executable, f"/{WANTED}"),
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """An attack that is over, and survived. What is asked of it gives it back."""

    ended: Ended
    dockerfile: str = ""

    def refused(self, *fragments: str, status: int = 1, line: int | None = None) -> Outcome:
        """It ended with `status`; the report holds the fragments and points at the line of the Dockerfile."""
        shown = self.ended.text[-3000:]
        assert self.ended.status == status, f"status {self.ended.status}, not {status}:\n{shown}"
        for fragment in fragments:
            assert fragment in self.ended.report, f"no {fragment!r} in the report:\n{shown}"
        if line is not None:
            assert f"{self.dockerfile}:{line}\n" in self.ended.report, f"no line {line} in the report:\n{shown}"
            assert f" {line:3} | >>>" in self.ended.report, f"line {line} is not marked:\n{shown}"
        return self

    def harmless(self, *fragments: str) -> Outcome:
        """It went well: what looked like an attack meant something allowed. The output holds the fragments."""
        assert self.ended.status == 0, f"status {self.ended.status}:\n{self.ended.text[-3000:]}"
        for fragment in fragments:
            assert fragment in self.ended.text, f"no {fragment!r} in the output:\n{self.ended.text[-3000:]}"
        return self


@dataclass
class Attack:
    """`directory` is the test's own; `canary` lies outside of everything and holds one file, `secret`."""

    commands: Commands
    root: Path
    directory: Path
    canary: Path
    environment: dict[str, str] = field(default_factory=dict)
    _before: object = None

    def __post_init__(self) -> None:
        self.canary.mkdir(exist_ok=True)
        (self.canary / "secret").write_text("canary\n")
        self._before = self._outside()

    def run(self, *arguments: object, root: Path | None = None, **more: Any) -> Outcome:
        """`pybuild --root ROOT ARGUMENTS`."""
        more["environment"] = {**self.environment, **more.get("environment", {})}
        ended = self.commands.run("--root", root or self.root, *arguments, **more)
        self.check(ended)
        return Outcome(ended=ended)

    def build(
        self, dockerfile: str | bytes, *flags: object, files: Mapping[str, Put] | None = None, **more: Any
    ) -> Outcome:
        """Build a context of this Dockerfile and these files. Without an output flag nothing is exported."""
        context = self.context({"Dockerfile": dockerfile, **(files or {})})
        if not {"-o", "--output", "-t"}.intersection(map(str, flags)):
            flags = (*flags, "-o", "type=cacheonly")
        outcome = self.run("build", *flags, context, **more)
        return Outcome(ended=outcome.ended, dockerfile=f"{context}/Dockerfile")

    def context(self, files: Mapping[str, Put]) -> Path:
        """A new directory with these files."""
        context = self.directory / "context"
        if context.exists():
            shutil.rmtree(context)
        for name, content in files.items():
            path = context / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str | bytes):
                path.write_bytes(content.encode() if isinstance(content, str) else content)
            else:
                content(path)
        return context

    def check(self, ended: Ended) -> None:
        """What holds for every command, whatever it was asked."""
        shown = ended.text[-3000:]
        assert ended.status != 70, shown
        assert "Traceback" not in ended.text, shown
        unsafe = _UNSAFE.search(ended.stdout + ended.stderr)
        assert unsafe is None, f"{unsafe} reaches the terminal:\n{shown}"
        assert self._outside() == self._before, f"something outside was touched:\n{shown}"

    def _outside(self) -> object:
        return [_state(Path(self.canary)), *[_state(Path(path)) for path in _HOST]]


def _state(path: Path) -> object:
    """All that is to be seen of a file, or of a directory and what is in it."""
    try:
        info = path.lstat()
    except FileNotFoundError:
        return None
    state: list[object] = [info.st_mode, info.st_uid, info.st_gid, info.st_ino, info.st_mtime_ns, info.st_nlink]
    if stat.S_ISDIR(info.st_mode):
        return [*state, {name: _state(path / name) for name in sorted(os.listdir(path))}]
    if stat.S_ISREG(info.st_mode):
        small = info.st_size < _LARGE  # of a program its times say enough
        return [*state, info.st_size, info.st_ctime_ns, path.read_bytes() if small else b""]
    return state


# --- what stands in contexts ----------------------------------------------------------------------------------


def link(target: object) -> Put:
    return lambda path: path.symlink_to(str(target))


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def loop_device(path: Path) -> None:
    os.mknod(path, stat.S_IFBLK | 0o666, os.makedev(7, 0))
