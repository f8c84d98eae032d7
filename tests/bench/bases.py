"""Base images for the benchmarks, in a registry of their own on loopback: Debian's busybox and a Debian."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bases import busybox, debian_minbase, docker_registry, image, push


@contextmanager
def registry_with_bases(work: Path) -> Iterator[str]:
    """`host:port` of a registry that has bench/busybox and bench/debian, for this block."""
    with docker_registry(work) as host:
        push(host, "bench/busybox", image(busybox(work)))
        push(host, "bench/debian", image(debian_minbase(work)))
        yield host
