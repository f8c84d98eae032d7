"""One daemon, 200 sessions and 20 builds at a time: how fast it answers meanwhile, and what it keeps of them.

The figures are printed: `pytest -s tests/integration/test_daemon_load.py`. That of the answers holds on a machine that
nobody else uses.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from buildengine.api import control_pb2 as pb
from tests.builds import FIXTURES, Store, write
from tests.fakes import leftovers
from tests.fakes.daemon import daemon
from tests.fakes.daemon_load import load

pytest_plugins = [FIXTURES]

SESSIONS, BUILDS = 200, 20
ANSWER = 50.0  # ms, of 99 in 100 ListWorkers
MEMORY = 50  # MB over idle, at the end
AFTERWARDS = 60.0  # seconds

DOCKERFILE = """\
FROM base AS shared
RUN sleep 3; head -c 20000000 /dev/urandom > /big; cat /proc/sys/kernel/random/uuid > /id
FROM base AS own
COPY . /src
RUN cat /src/*/* | sha256sum; seq 50000; sleep 2; sha256sum /src/own > /sum
FROM scratch
COPY --from=shared /id /big /
COPY --from=own /sum /
"""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a daemon holds: MB of memory, threads, descriptors, mounts, processes that it has started."""

    memory: float
    threads: int
    files: int
    mounts: int
    processes: int

    @staticmethod
    def of(pid: int) -> Usage:
        proc = Path(f"/proc/{pid}")
        status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines())
        children = (task.read_text().split() for task in proc.glob("task/*/children"))
        return Usage(
            memory=round(int(status["VmRSS"].split()[0]) / 1024, 1),
            threads=int(status["Threads"]),
            files=len(list((proc / "fd").iterdir())),
            mounts=len((proc / "mountinfo").read_text().splitlines()),
            processes=sum(map(len, children)),
        )


def contexts(place: Path) -> Path:
    """For each build 300 files, of which one is its own."""
    plain = {f"d{number % 10}/f{number}": f"{number}\n" * 300 for number in range(300)}
    for number in range(BUILDS):
        write(place / f"{number:02}", {**plain, "Dockerfile": DOCKERFILE, "own": f"{number}\n"})
    return place


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_hundred_sessions_and_twenty_builds(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with daemon(store.root, tmp_path) as running:
        with running.client() as client:
            client.unary("ListWorkers", pb.ListWorkersRequest(), pb.ListWorkersResponse)
        idle = Usage.of(running.process.pid)
        words = ("sessions", f"unix://{tmp_path}/d.sock", SESSIONS - BUILDS, contexts(tmp_path / "contexts"), out)
        with load("pings", running.address) as pinging, load(*words) as clients:
            began = time.monotonic()
            assert clients.stdout is not None
            builds = json.loads(clients.stdout.readline())
            took = time.monotonic() - began
            peak = Usage.of(running.process.pid)
            pings = json.loads(pinging.communicate()[0])
        time.sleep(AFTERWARDS)
        after = Usage.of(running.process.pid)
    usages = {"idle": idle, "peak": peak, "after": after}
    p50, p99 = (statistics.quantiles(pings, n=100)[place] * 1000 for place in (49, 98))
    print(f"\n{len(builds)} builds in {took:.1f} s", *(f"{name:5} {usage}" for name, usage in usages.items()), sep="\n")
    print(f"{len(pings)} ListWorkers: p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {max(pings) * 1000:.1f} ms")
    assert len(builds) == BUILDS
    assert len({(out / name / "id").read_text() for name in builds}) == 1  # the shared step has run once
    assert len({(out / name / "sum").read_text() for name in builds}) == BUILDS
    assert peak.files > SESSIONS
    assert after.memory - idle.memory < MEMORY
    assert after.files <= idle.files
    assert after.threads <= idle.threads
    assert (after.mounts, after.processes) == (idle.mounts, idle.processes)
    assert leftovers.files(store.root) == []
    assert p99 < ANSWER
