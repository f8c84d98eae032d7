"""What of this host a sandbox needs to run this very Python: its program, its libraries, and ours, read-only.

Nothing of them is a path of the host's that a process could leave by: each is a bind mount in a root that is empty
otherwise. What is found here is the same for the whole life of this process.
"""

from __future__ import annotations

import os
import stat
import struct
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from buildengine.errors import HostError
from buildengine.values import dataclass
from worker.runtime.spec import BindMount

PACKAGES = ("buildengine", "cache", "frontends", "llb", "solver", "worker")
_INSTALLED = ("site-packages", "dist-packages")
_LIBRARY_CACHE = "/etc/ld.so.cache"  # ld.so(8): with it libraries are found where they are on this host
_PT_INTERP = 3  # elf(5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """`argv` begins a command, `paths` are what `sys.path` is to be."""

    argv: tuple[str, ...]
    paths: tuple[str, ...]
    mounts: tuple[BindMount, ...]

    def has(self, path: Path) -> bool:
        return any(path.is_relative_to(mount.target) for mount in self.mounts)


@cache
def interpreter() -> Interpreter:
    """Raises HostError where others than root cannot read it."""
    program = os.path.realpath(sys.executable)
    for path in (program, os.__file__, __file__):
        check_readable(path)
    standard = [os.path.dirname(os.path.realpath(os.__file__))]
    packages = [path for path in sys.path if Path(path).name in _INSTALLED and Path(path).is_dir()]
    ours = str(Path(__file__).parents[2])
    libraries = _library_directories([*standard, *packages])
    own = [] if ours in packages else [f"{ours}/{name}" for name in PACKAGES]
    loader = _loader(program)
    found_by = [path for path in (loader, _LIBRARY_CACHE) if path and os.path.exists(path)]
    bound = dict.fromkeys([program, *standard, *packages, *libraries, *own, *found_by])
    dynamic = [path for path in sys.path if path.endswith("lib-dynload")]
    return Interpreter(
        argv=(program, "-I", "-S", "-B", "-X", "utf8"),
        paths=tuple(dict.fromkeys([*standard, *dynamic, *packages, ours])),
        mounts=tuple(
            [BindMount(target=path, source=os.path.realpath(path), readonly=True) for path in _outermost(bound)]
        ),
    )


def check_readable(path: str) -> None:
    """Raises HostError unless everybody may read this file."""
    if not os.stat(path).st_mode & stat.S_IROTH:
        raise HostError(
            f"a build file runs without privileges, and {path} can be read by its owner only",
            hint="was pybuild installed with a umask of 077? Make its Python's files readable: chmod -R o+rX DIRECTORY",
        )


def _outermost(paths: dict[str, None]) -> Iterator[str]:
    """Those that are in none of the others."""
    for path in paths:
        if not any(path != other and Path(path).is_relative_to(other) for other in paths):
            yield path


def _library_directories(python: list[str]) -> list[str]:
    """Where the shared libraries are that this process has loaded, but for those of Python's own directories."""
    found: dict[str, None] = {}
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            path = line.rstrip("\n").partition("/")[2]
            name = path.rpartition("/")[2]
            if ".so" in name and not any(Path("/" + path).is_relative_to(directory) for directory in python):
                found[os.path.dirname("/" + path)] = None
    return list(found)


def _loader(program: str) -> str | None:
    """The dynamic loader that a program names; None: it is linked statically."""
    with open(program, "rb") as file:
        head = file.read(64)
        if head[:4] != b"\x7fELF":
            return None
        wide = head[4] == 2
        order = "<" if head[5] == 1 else ">"
        (start,) = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)
        size, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
        for number in range(count):
            file.seek(start + number * size)
            entry = file.read(size)
            if struct.unpack_from(order + "I", entry)[0] == _PT_INTERP:
                offset, length = (
                    (struct.unpack_from(order + "Q", entry, 8)[0], struct.unpack_from(order + "Q", entry, 32)[0])
                    if wide
                    else (struct.unpack_from(order + "I", entry, 4)[0], struct.unpack_from(order + "I", entry, 16)[0])
                )
                file.seek(offset)
                return os.fsdecode(file.read(length).rstrip(b"\0"))
    return None
