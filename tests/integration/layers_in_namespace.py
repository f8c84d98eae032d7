"""Runs in a mount namespace of its own: `python -m tests.integration.layers_in_namespace COMMAND`.

`change` mounts layers, runs a shell script in each tree and writes the new layers as archives; `show` prints what
stacks of layers show. Layers are topmost first; arguments come and answers go as pickles.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.unit.layers_trees import describe, written


def mount(point: Path, lowers: list[str], upper: str | None = None, work: str | None = None) -> None:
    point.mkdir(exist_ok=True)
    options = "lowerdir=" + ":".join(lowers if upper or len(lowers) > 1 else [*lowers, _empty(point)])
    if upper is not None:
        options += f",upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, point], check=True)


def _empty(point: Path) -> str:
    empty = point.with_name("empty")
    empty.mkdir(exist_ok=True)
    return str(empty)


def change(steps: list[tuple[list[str], str, str]]) -> None:
    """Each step is (lowers, upper, script): the new layer is `upper`, its archive `upper`.tar."""
    for lowers, upper, script in steps:
        base = Path(upper + ".mounts")
        (base / "work").mkdir(parents=True)
        point = base / "mount"
        mount(point, lowers or [_empty(point)], upper, str(base / "work"))
        subprocess.run(["bash", "-euc", script], cwd=point, check=True, stdin=subprocess.DEVNULL)
        below = None
        if lowers:
            mount(base / "below", lowers)
            below = base / "below"
        Path(f"{upper}.tar").write_bytes(written(Path(upper), below))


def show(base: str, stacks: list[list[str]]) -> None:
    """What each stack shows, times of directories left out: making anything in one changes it."""
    shown = []
    for number, lowers in enumerate(stacks):
        point = Path(base, f"show{number}")
        mount(point, lowers)
        shown.append(describe(point, times=False, whole_seconds=True))
    sys.stdout.buffer.write(pickle.dumps(shown))


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {"change": change, "show": show}
    commands[sys.argv[1]](*pickle.load(sys.stdin.buffer))
