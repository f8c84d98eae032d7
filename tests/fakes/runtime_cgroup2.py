"""A cgroup2 hierarchy of plain files: new groups get their files, controllers are handed down as in the kernel."""

from __future__ import annotations

import os
from pathlib import Path

from worker.runtime import cgroups

_FILES = {
    "memory": ("memory.max", "memory.swap.max", "memory.peak", "memory.events"),
    "pids": ("pids.max",),
    "cpu": ("cpu.max",),
}


class Cgroup2:
    """`own` is where the engine is; groups in `enabled` hand those controllers down, those in `full` hold processes."""

    def __init__(self, mount: Path, own: str, enabled: dict[str, str], full: tuple[str, ...] = ()) -> None:
        self.mount = mount
        self.own = mount / own
        self.full = full
        parts = [part for part in own.split("/") if part]
        for depth in range(len(parts) + 1):
            name = "/".join(parts[:depth])
            (mount / name).mkdir(exist_ok=True)
            self._populate(mount / name, enabled.get(name, ""))

    def layout(self) -> cgroups.Layout:
        layout = cgroups.Layout({}, (str(self.mount), str(self.own)))
        layout._mkdir = self.mkdir
        return layout

    def mkdir(self, path: str) -> None:
        os.mkdir(path)
        self._populate(Path(path), "")
        for controller in Path(path).parent.joinpath("cgroup.subtree_control").read_text().split():
            for name in _FILES.get(controller.lstrip("+"), ()):
                Path(path, name).touch()

    def write(self, path: str, text: str) -> None:
        """In place of `cgroups.write`: control files add up, and refuse where processes are."""
        file = Path(path)
        if not file.exists():
            raise FileNotFoundError(path)
        if file.name == "cgroup.subtree_control":
            if str(file.parent.relative_to(self.mount)) in self.full:
                raise OSError(16, "Device or resource busy", path)
            text = " ".join(sorted({*file.read_text().split(), *text.replace("+", "").split()}))
        file.write_text(text)

    def _populate(self, path: Path, enabled: str) -> None:
        (path / "cgroup.procs").touch()
        (path / "cgroup.subtree_control").write_text(enabled)
