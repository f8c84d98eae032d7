"""Steps to run in tests: a small root of busybox, a fresh layer for each step, and the output in two strings."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.overlay import TreeMount
from worker.runtime.runtime import Exit, Runtime
from worker.runtime.spec import ProcessSpec
from worker.session import SecretBytes

BUSYBOX = "/bin/busybox"
PATH = "PATH=/bin:/usr/bin"
KINDS = ("builtin", "runc", "crun")


def make_rootfs(directory: Path, *, mount_points: bool = True) -> Path:
    """busybox with all its names, /tmp, two users; with or without /proc, /sys, /dev and the files of /etc."""
    (directory / "bin").mkdir(parents=True)
    shutil.copy(BUSYBOX, directory / "bin/busybox")
    for name in subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if name != "busybox":
            (directory / "bin" / name).symlink_to("busybox")
    (directory / "etc").mkdir()
    (directory / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nbuilder:x:1000:1000::/home:/bin/sh\n")
    (directory / "tmp").mkdir()
    (directory / "tmp").chmod(0o1777)
    if mount_points:
        for name in ("proc", "sys", "dev"):
            (directory / name).mkdir()
        for name in ("hosts", "resolv.conf"):
            (directory / "etc" / name).touch()
    return directory


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    exit: Exit
    out: str
    err: str

    @property
    def code(self) -> int:
        return self.exit.code


class Steps:
    """Makes specs on one base and runs them."""

    def __init__(self, base: Path, scratch: Path) -> None:
        self.base = base
        self.scratch = scratch
        self._made = 0

    def layer(self) -> TreeMount:
        """The base with a fresh layer on it."""
        self._made += 1
        upper, work = self.scratch / f"upper{self._made}", self.scratch / f"work{self._made}"
        upper.mkdir()
        work.mkdir()
        return TreeMount(lowers=(str(self.base),), upper=str(upper), work=str(work))

    def spec(self, *argv: str, **fields: Any) -> ProcessSpec:
        defaults: dict[str, Any] = {"id": "step", "argv": argv, "env": (PATH,)}
        if "root" not in fields:
            defaults["root"] = self.layer()
        return ProcessSpec(**defaults | fields)

    async def run(self, runtime: Runtime, spec: ProcessSpec, secrets: Mapping[str, bytes] | None = None) -> Result:
        output: dict[int, list[bytes]] = {1: [], 2: []}
        hidden = {name: SecretBytes(value) for name, value in (secrets or {}).items()}
        ended = await runtime.run(spec, secrets=hidden, on_output=lambda fd, data: output[fd].append(data))
        out, err = (b"".join(output[fd]).decode(errors="replace") for fd in (1, 2))
        return Result(exit=ended, out=out, err=err)

    async def sh(
        self, runtime: Runtime, script: str, secrets: Mapping[str, bytes] | None = None, **fields: Any
    ) -> Result:
        return await self.run(runtime, self.spec("/bin/sh", "-c", script, **fields), secrets)


def upper(spec: ProcessSpec) -> Path:
    assert spec.root.upper
    return Path(spec.root.upper)


def listing(directory: Path) -> list[str]:
    """Every path below, relative, sorted."""
    return sorted(
        os.path.relpath(os.path.join(parent, name), directory)
        for parent, folders, files in os.walk(directory)
        for name in folders + files
    )


def processes_with(marker: str) -> list[int]:
    """Processes that have `marker` in their command line or environment."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            for name in ("cmdline", "environ"):
                try:
                    if marker.encode() in Path(f"/proc/{entry}/{name}").read_bytes():
                        found.append(int(entry))
                        break
                except OSError:
                    continue
    return found


def control_groups(prefix: str) -> list[str]:
    return [
        os.path.join(parent, name)
        for parent, folders, _ in os.walk("/sys/fs/cgroup")
        for name in folders
        if name.startswith(prefix)
    ]
