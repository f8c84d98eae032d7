"""The images of the benchmarks, in a registry of their own on loopback: Debian's busybox, a Debian, a large one.

They are made by a process of its own: what Linux reports as the peak memory of a command that is timed is at least
that of whoever started it.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.bases import BaseImage, busybox, debian_minbase, docker_registry, image, layer, push

LARGE_LAYERS = 8
_LAYER_BYTES = 40 << 20


@contextmanager
def registry_with_bases(work: Path, names: Collection[str]) -> Iterator[str]:
    """`host:port` of a registry that has bench/NAME for each of `names`, for this block."""
    with docker_registry(work) as host:
        subprocess.run([sys.executable, "-m", __name__, host, str(work), *names], check=True)
        yield host


def _large(work: Path) -> BaseImage:
    """Layers that cannot be compressed."""
    rng = random.Random(8)
    return image(*(layer({f"file{number}": rng.randbytes(_LAYER_BYTES)}) for number in range(LARGE_LAYERS)))


_MAKERS: Mapping[str, Callable[[Path], BaseImage]] = {
    "busybox": lambda work: image(busybox(work)),
    "debian": lambda work: image(debian_minbase(work)),
    "large": _large,
}


def _push_all(host: str, work: str, *names: str) -> None:
    for name in names:
        push(host, f"bench/{name}", _MAKERS[name](Path(work)))


if __name__ == "__main__":
    _push_all(*sys.argv[1:])
