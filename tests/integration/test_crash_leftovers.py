"""The instrument: what looks for leftovers sees each kind of them. And a helper program is none."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.builds import FIXTURES, write
from tests.fakes import leftovers
from tests.fakes.crash_builds import Site, send

pytest_plugins = [FIXTURES, "tests.fakes.crash_fixtures"]

MARKER = f"86399.{os.getpid()}"


@contextmanager
def orphan(watch: leftovers.Watch, *argv: str, enclosed: bool = False) -> Iterator[None]:
    """A process that nobody waits for, until it shows."""
    command = watch.enclosed(argv) if enclosed else list(argv)
    script = '"$@" > /dev/null 2>&1 & echo $!'
    started = subprocess.run(["sh", "-c", script, "sh", *command], capture_output=True, check=True, text=True)
    try:
        assert leftovers.until(lambda: bool(watch.found()))
        yield
    finally:
        send([int(started.stdout)], signal.SIGKILL)
        assert leftovers.until(lambda: not watch.found())


def only(watch: leftovers.Watch, what: str) -> bool:
    return all(found.startswith(what) for found in watch.found())


def test_a_process_is_seen_by_its_marker(tmp_path: Path) -> None:
    with leftovers.watch(tmp_path, marker=MARKER) as watch, orphan(watch, "sleep", MARKER):
        assert only(watch, "process ")
        assert len(watch.members()) == 1


def test_a_process_without_any_mark_is_seen_by_its_control_group(tmp_path: Path) -> None:
    argv = ("env", "-i", "setsid", "sleep", "1000")
    with leftovers.watch(tmp_path, marker=MARKER) as watch, orphan(watch, *argv, enclosed=True):
        assert only(watch, "process ")


def test_an_orphan_in_namespaces_of_its_own_is_seen(tmp_path: Path) -> None:
    argv = ("env", "-i", "unshare", "--uts", "sleep", "1000")
    with leftovers.watch(tmp_path, marker=MARKER) as watch, orphan(watch, *argv):
        assert "uts:[" in watch.found()[0]


def test_an_orphan_of_somebody_else_is_none_of_ours(tmp_path: Path) -> None:
    """It was nobody's child when the watch began."""
    os.mkfifo(tmp_path / "go")
    script = f"(read x < {tmp_path}/go; env -i unshare --uts sleep {MARKER} &) > /dev/null 2>&1 & echo $!"
    stranger = int(subprocess.run(["sh", "-c", script], capture_output=True, check=True, text=True).stdout)
    wanted = f"sleep\0{MARKER}\0".encode()
    with leftovers.watch(tmp_path, marker=f"{MARKER}-other") as watch:
        (tmp_path / "go").write_text("x\n")
        assert leftovers.until(lambda: wanted in map(leftovers.command_line, leftovers.pids()))
        (theirs,) = (pid for pid in leftovers.pids() if leftovers.command_line(pid) == wanted)
        try:
            assert leftovers.until(lambda: stranger not in leftovers.pids())
            assert watch.found() == []
        finally:
            send([theirs], signal.SIGKILL)


def test_a_state_of_a_runtime_is_seen_when_it_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "_RUNTIME_STATES", (tmp_path,))
    with leftovers.watch(tmp_path, marker=MARKER) as watch:
        state = write(tmp_path / "container", {"state.json": '{"labels": ["bundle=/somewhere/else"]}'})
        assert watch.found() == []
        write(state, {"state.json": '{"labels": ["bundle=/proc/fs/bundle"]}'})
        assert watch.found() == [f"state of an OCI runtime: {state}"]


def test_time_in_which_we_were_stopped_is_no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark may stop all others on the host, us and what we wait for, for a minute."""
    clock = itertools.count(0.0, 60.0)
    monkeypatch.setattr(leftovers.time, "monotonic", lambda: next(clock))
    looks = itertools.count()
    assert leftovers.until(lambda: next(looks) == 3, patience=5.0)
    assert not leftovers.until(lambda: False, patience=5.0)


def test_a_mount_is_seen_in_any_namespace(tmp_path: Path) -> None:
    argv = ("unshare", "--mount", "sh", "-c", f"mount -t tmpfs tmpfs {tmp_path} && exec env -i sleep 1000")
    with leftovers.watch(tmp_path, marker=MARKER) as watch, orphan(watch, *argv):
        assert leftovers.until(lambda: any(found.startswith("mount of ") for found in watch.found()))


MOUNTS = Path("/proc/self/mountinfo").read_text().splitlines()
HIERARCHIES = sorted(line.split()[4] for line in MOUNTS if " - cgroup" in line)


@pytest.mark.parametrize("hierarchy", HIERARCHIES)
def test_a_control_group_is_seen_in_any_hierarchy(tmp_path: Path, hierarchy: str) -> None:
    directory = Path(hierarchy, f"pybuild-1-{os.getpid()}-1-1")
    with leftovers.watch(tmp_path, marker=MARKER) as watch:
        watch.engine(os.getpid())
        directory.mkdir()
        try:
            assert watch.found() == [f"control group {directory}"]
        finally:
            directory.rmdir()


def test_files_of_a_store_are_seen(tmp_path: Path) -> None:
    names = ("ingest/x.1", "leases/1", "locks/1", "git/abc.1.new", "git/abc/index.1", "git/abc/shallow.lock")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert leftovers.files(tmp_path) == sorted(names)


def test_a_helper_program_dies_with_the_command(site: Site) -> None:
    """git waits for a server that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server, site.watched() as watch:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/{site.marker}.git"
        with site.start(watch, "build", "--progress", "rawjson", url) as build, server.accept()[0]:
            assert len(watch.members()) > 1
            build.process.kill()
            build.process.wait()
            assert watch.remaining() == []
        site.recover(watch)


def test_a_half_made_repository_is_taken_away(site: Site) -> None:
    half = site.store.root / "git" / "0123.4567.new"
    half.mkdir(parents=True)
    with site.watched() as watch:
        with site.start(watch, *site.arguments(held=True)) as build:
            build.until("COPY")
            build.process.kill()
        site.recover(watch)
    assert not half.exists()
