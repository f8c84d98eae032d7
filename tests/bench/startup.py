"""What a build file in Python costs beside the same build as a Dockerfile: all cached, whole commands, taking turns.

Wall clock and processor time of all processes of the command, seconds, as medians; the target is 0.15 s more.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.builds import PYBUILD, write

FILES = {
    "greeting": "hello\n",
    "Dockerfile": 'FROM scratch\nCOPY greeting /greeting\nENV WHO=you\nCMD ["/greeting"]\n',
    "build.py": """\
import llb
from frontends import Context, Image


async def build(ctx: Context) -> Image:
    \"\"\"The same as the Dockerfile beside it.\"\"\"
    source = await ctx.context(include=["greeting"])
    image = Image.of(llb.scratch().file(llb.copy(source, "greeting", "/greeting")))
    return image.with_env("WHO", "you").with_cmd("/greeting")
""",
}


class Cost(NamedTuple):
    wall: float
    processor: float


def measure(work: Path, runs: int) -> Sequence[tuple[str, float, float, float]]:
    """(what is measured, of the Dockerfile, of the build file, what that is more in the median of the pairs)."""
    context = write(work / "startup", FILES)
    names = ("Dockerfile", "build.py")
    for name in names * 2:
        _build(work, context, name)
    pairs = [[_build(work, context, name) for name in names] for _ in range(runs)]
    rows = []
    for position, kind in enumerate(Cost._fields):
        ours = [[pair[number][position] for pair in pairs] for number in (0, 1)]
        more = statistics.median(file - dockerfile for dockerfile, file in zip(*ours, strict=True))
        rows.append((kind, statistics.median(ours[0]), statistics.median(ours[1]), more))
    return rows


def _build(work: Path, context: Path, name: str) -> Cost:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    argv = [PYBUILD, "--root", work / "startup-root", "build", "-q", "-f", context / name, context]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    ended, after = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(ended - started, processor)
