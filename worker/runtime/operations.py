"""What PID 1 will do to build a root, as values: each operation says in `describe()` what it is about.

`plan.py` makes the list, `actions.py` has a function of the same name with the same arguments, and a failure
names the operation. Nothing here touches anything.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import field, fields
from typing import Any, ClassVar

from buildengine.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(ABC):
    """One thing that PID 1 does. Subclasses are named by the function that does it."""

    kind: ClassVar[str]

    @abstractmethod
    def describe(self) -> str: ...

    def wire(self) -> tuple[str, str, dict[str, Any]]:
        return self.kind, self.describe(), {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Root(Operation):
    kind: ClassVar[str] = "root"
    lowers: tuple[str, ...]
    upper: str | None
    work: str | None

    def describe(self) -> str:
        return f"mounting the root file system ({len(self.lowers)} layers)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostname(Operation):
    kind: ClassVar[str] = "hostname"
    name: str

    def describe(self) -> str:
        return f"setting the host name to {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Network(Operation):
    kind: ClassVar[str] = "network"

    def describe(self) -> str:
        return "making an empty network namespace"


@dataclass(frozen=True, slots=True, kw_only=True)
class Targeted(Operation):
    """An operation that puts something on `target`."""

    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mountpoint(Targeted):
    kind: ClassVar[str] = "mountpoint"

    def describe(self) -> str:
        return f"preparing {self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filesystem(Targeted):
    kind: ClassVar[str] = "filesystem"
    fstype: str
    options: tuple[tuple[str, str | None], ...] = ()
    attributes: int = 0
    nofollow: bool = False

    def describe(self) -> str:
        return f"mounting a {self.fstype} at {self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices(Targeted):
    kind: ClassVar[str] = "devices"
    nodes: tuple[tuple[str, int, int, int], ...]
    links: tuple[tuple[str, str], ...]
    folders: tuple[str, ...]

    def describe(self) -> str:
        return f"making the devices of {self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroup(Targeted):
    kind: ClassVar[str] = "cgroup"
    writable: bool

    def describe(self) -> str:
        return f"mounting the step's control groups at {self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree(Targeted):
    kind: ClassVar[str] = "tree"
    lowers: tuple[str, ...]
    upper: str | None
    work: str | None
    selector: str
    readonly: bool

    def describe(self) -> str:
        what = f"{self.selector} of a tree" if self.selector else "a tree"
        return f"mounting {what} at {self.target}" + (", read-only" if self.readonly else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind(Targeted):
    kind: ClassVar[str] = "bind"
    source: str
    readonly: bool

    def describe(self) -> str:
        return f"mounting {self.source} at {self.target}" + (", read-only" if self.readonly else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class File(Targeted):
    kind: ClassVar[str] = "file"
    contents: bytes = field(repr=False)
    uid: int = 0
    gid: int = 0
    mode: int = 0o644
    attributes: int = 0

    def describe(self) -> str:
        return f"mounting a file at {self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask(Operation):
    kind: ClassVar[str] = "mask"
    paths: tuple[str, ...]

    def describe(self) -> str:
        return "hiding " + " ".join(self.paths)


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze(Operation):
    kind: ClassVar[str] = "freeze"
    paths: tuple[str, ...]

    def describe(self) -> str:
        return "making read-only " + " ".join(self.paths)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workdir(Operation):
    kind: ClassVar[str] = "workdir"
    path: str
    uid: int
    gid: int

    def describe(self) -> str:
        return f"making the working directory {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadonlyRoot(Operation):
    kind: ClassVar[str] = "readonly_root"

    def describe(self) -> str:
        return "making the root file system read-only"
