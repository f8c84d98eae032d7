"""A daemon that is told to end, or is killed, in the middle of twenty builds: steps, a pull, exports to a client."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import bases
from tests.builds import FIXTURES, Store, write
from tests.fakes import leftovers
from tests.fakes.daemon import Daemon, daemon, grpc
from tests.fakes.daemon_load import load
from tests.integration.test_daemon_life import SHUT_DOWN, files

pytest_plugins = [FIXTURES]

BUILDS, IDLE = 20, 30
LARGE = 64 << 20  # bytes of the layer that is pulled

SLEEPING = (
    "FROM base\nRUN (sleep 1000 & sleep 1000) & trap '' TERM HUP INT; echo running; sleep 1000; : {number} {marker}\n"
)
EXPORTING = "FROM base\nRUN head -c 30000000 /dev/urandom > /big; : {number} {marker}\n"
PULLING = "FROM {host}/large\nCOPY Dockerfile /{number}\n"


def contexts(place: Path, **words: str) -> Path:
    """Every other one sleeps."""
    for number in range(BUILDS):
        text = (SLEEPING, EXPORTING, SLEEPING, PULLING)[number % 4].format(number=number, **words)
        write(place / f"{number:02}", {"Dockerfile": text})
    return place


@contextmanager
def busy(store: Store, place: Path) -> Iterator[Daemon]:
    """A daemon in the middle of it. It is to end in this block, and nothing of it may be left behind."""
    marker = f"busy-{os.getpid()}"
    with bases.docker_registry(place) as host, leftovers.watch(place, marker=marker) as watch:
        bases.push(host, "large", bases.image(bases.layer({"large": os.urandom(LARGE)})))
        directory = contexts(place / "contexts", host=host, marker=marker)
        with daemon(store.root, place, prefix=watch.enclosed([])) as started, started.client() as client:
            watch.engine(started.process.pid)
            client.solve(files("before"), ref="before")
            with load("sessions", f"unix://{place}/d.sock", IDLE, directory, place / "out"):
                assert leftovers.until(lambda: len(client.history(ActiveOnly=True)) > BUILDS // 2)
                for number in range(0, BUILDS, 2):
                    client.until_output(f"load-{number:02}", "running")
                yield started
        assert watch.remaining() == []


@pytest.mark.slow
def test_told_to_end(store: Store, tmp_path: Path) -> None:
    with busy(store, tmp_path) as started:
        began = time.monotonic()
        assert started.stop() == 0
        took = time.monotonic() - began
    print(f"\nended after {took:.1f} s")
    assert took < SHUT_DOWN
    assert leftovers.files(store.root) == []
    store.command("debug", "verify-store")
    with daemon(store.root, tmp_path) as again, again.client() as client:
        records = {event.record.Ref: event.record for event in client.history()}
        assert len(records) == 1 + BUILDS
        ends = {records[f"load-{number:02}"].error.code for number in range(0, BUILDS, 2)}
        assert ends == {grpc.StatusCode.CANCELLED.value[0]}
        assert "running" in client.status("load-00").output


@pytest.mark.slow
def test_killed(store: Store, tmp_path: Path) -> None:
    with busy(store, tmp_path) as started:
        started.stop(signal.SIGKILL)
    with daemon(store.root, tmp_path) as again, again.client() as client:  # its socket was still there
        refs = {event.record.Ref for event in client.history()}
        assert "before" in refs
        assert not refs & {f"load-{number:02}" for number in range(0, BUILDS, 2)}
        assert client.status("before").vertices
        client.solve(files("after"), ref="after")
        assert again.stop() == 0
    assert leftovers.files(store.root) == []
    store.command("debug", "verify-store")
