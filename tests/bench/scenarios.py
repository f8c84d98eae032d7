"""The work that is timed: each scenario prepares a context once and says what one timed run builds.

prepare(directory)        makes the context; called once for each engine
before(directory, run)    changes it before each run, untimed
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


def _nothing(directory: Path, run: int) -> None:
    """No change between runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """`target` is in seconds, from the project's goals; `cold`: every run starts with nothing but the base."""

    name: str
    target: float
    prepare: Callable[[Path], None]
    before: Callable[[Path, int], None] = _nothing
    cold: bool = False
    no_cache: bool = False
    warm_runs: int = 0
    archive: bool = False
    base: str = "busybox"


def _dockerfile(directory: Path, text: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "Dockerfile").write_text(text)


def _sequential(directory: Path) -> None:
    _dockerfile(directory, "FROM bench/busybox\n" + "".join(f"RUN echo {n}\n" for n in range(30)))


def _parallel(directory: Path) -> None:
    stages = "".join(f"FROM bench/busybox AS s{n}\nRUN sleep 1 && echo {n} > /out{n}\n" for n in range(8))
    copies = "".join(f"COPY --from=s{n} /out{n} /\n" for n in range(8))
    _dockerfile(directory, f"{stages}FROM bench/busybox\n{copies}")


def _files(directory: Path) -> None:
    """20,000 files, 178 MB, in 200 directories: small sources, some larger ones."""
    rng = random.Random(7)
    block = rng.randbytes(1 << 20)
    for number in range(20_000):
        folder = directory / "src" / f"d{number % 200:03}"
        if number < 200:
            folder.mkdir(parents=True)
        size = 8_900 + rng.randrange(-4_000, 4_000)
        start = rng.randrange(len(block) - size)
        (folder / f"f{number:05}.txt").write_bytes(b"%d\n" % number + block[start : start + size])
    _dockerfile(directory, "FROM bench/busybox\nCOPY src /src\nRUN ls /src | wc -l\n")


def _change_one(directory: Path, run: int) -> None:
    (directory / "src" / "d007" / "f00007.txt").write_text(f"changed {run} {os.getpid()}\n")


def _copy_usr(directory: Path) -> None:
    _dockerfile(directory, "FROM bench/debian\nRUN cp -a /usr /copy\n")


def _copies(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for number in range(50):
        (directory / f"file{number}").write_text(f"{number}\n" * 10)
    _dockerfile(directory, "FROM bench/busybox\n" + "".join(f"COPY file{n} /data/f{n}\n" for n in range(50)))


def _small(directory: Path) -> None:
    _dockerfile(directory, "FROM bench/busybox\nCOPY Dockerfile /a\nRUN echo hello > /b\nENV A=b\n")


BEGIN = Scenario(name="what a new state directory begins with", target=0.4, prepare=_small)

SCENARIOS = (
    Scenario(name="30 sequential RUN echo, uncached", target=0.75, prepare=_sequential, no_cache=True),
    Scenario(name="8 stages that sleep 1 s, gathered", target=1.25, prepare=_parallel, no_cache=True),
    Scenario(name="20,000 files, COPY and RUN, first build", target=2.5, prepare=_files, cold=True),
    Scenario(name="20,000 files, nothing changed", target=0.35, prepare=_files, warm_runs=1),
    Scenario(name="20,000 files, one file changed", target=1.5, prepare=_files, warm_runs=1, before=_change_one),
    Scenario(
        name="cp -a /usr to a gzip OCI archive",
        target=2.5,
        prepare=_copy_usr,
        no_cache=True,
        archive=True,
        base="debian",
    ),
    Scenario(name="50 COPY lines, uncached", target=0.45, prepare=_copies, no_cache=True),
    Scenario(name="small build, fully cached", target=0.4, prepare=_small, warm_runs=1),
)
