"""packages.yaml, and as much of YAML as it takes: names, and lists of names, each with its line.

Standard library only: lock.py reads it on the host, build.py in the engine's sandbox.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# Debian's architectures as image platforms name them.
PLATFORMS = {
    "amd64": "linux/amd64", "arm64": "linux/arm64", "armel": "linux/arm/v5", "armhf": "linux/arm/v7",
    "i386": "linux/386", "mips64el": "linux/mips64le", "ppc64el": "linux/ppc64le", "riscv64": "linux/riscv64",
    "s390x": "linux/s390x",
}  # fmt: skip
_LISTS = ("packages", "architectures")
_KEYS = (*_LISTS, "command")
_LINE = re.compile(r"(?:(?P<key>[\w-]+):|(?P<item> *- ))\s*(?P<value>[^\s#].*?)?\s*(?:(?:^|\s)#.*)?")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")  # Debian Policy, 5.6.1


class Wrong(Exception):
    """`line` of the file, from 1, is not what it should be."""

    def __init__(self, line: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.line, self.hint = line, hint


@dataclass(frozen=True)
class Listing:
    """The names in their order, each with the line that it stands on. `command` is what containers run; no
    architectures: the one of the host."""

    packages: dict[str, int] = field(default_factory=dict)
    architectures: dict[str, int] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    twice: tuple[tuple[str, int], ...] = ()  # names that were there before, and where they are again


def parse(text: str) -> Listing:
    """Raises Wrong."""
    lists: dict[str, dict[str, int]] = {key: {} for key in _LISTS}
    command: tuple[str, ...] = ()
    twice = []
    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise Wrong(number, "this is neither a key nor an item of a list", "e.g. `packages:` or `  - coreutils`")
        key, value = match["key"], match["value"] or ""
        if key:
            current = _key(number, key, value)
            command = tuple(value.split()) if key == "command" else command
        elif current not in _LISTS:
            raise Wrong(number, "an item that belongs to no list", "`packages:` or `architectures:` stands above it")
        elif value in lists[current]:
            twice.append((value, number))
        else:
            lists[current][_name(number, current, value)] = number
    if not lists["packages"]:
        raise Wrong(1, "there are no packages", "packages:\n  - base-files")
    return Listing(command=command, twice=tuple(twice), **lists)


def _key(number: int, key: str, value: str) -> str:
    if key not in _KEYS:
        raise Wrong(number, f"unknown key {key}", f"one of {', '.join(_KEYS)}")
    if key in _LISTS and value:
        raise Wrong(number, f"{key} is a list", f"{key}:\n  - {value}")
    return key


def _name(number: int, current: str, value: str) -> str:
    if current == "architectures" and value not in PLATFORMS:
        raise Wrong(number, f"unknown architecture {value!r}", f"one of {', '.join(PLATFORMS)}")
    if not _PACKAGE.fullmatch(value):
        raise Wrong(number, f"{value!r} is no name of a package")
    return value
