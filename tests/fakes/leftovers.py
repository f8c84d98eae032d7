"""Is anything left? A picture of the host before a command, and what is there afterwards that was not.

    with leftovers.watch(tmp_path, marker=marker) as watch:
        process = subprocess.Popen(watch.enclosed(argv))
        watch.engine(process.pid)
        ...kill it...
        assert watch.remaining() == []          # after what is on its way out has gone
    assert leftovers.files(root) == []          # in a store that no command has open

What counts is what can be traced to the command, since others may work on the same host: processes by a marker in
their command line or environment, by the control group that the command was started in (nobody leaves it),
by what they have mounted, or as orphans in namespaces of their own, which while a watch lasts come to the process
that watches (PR_SET_CHILD_SUBREAPER) and not to PID 1; control groups by the engine's pid; states of an OCI runtime
by the bundle that they name.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from worker.runtime import syscalls
from worker.runtime.assembly import SCRATCH

_GROUPS = Path("/sys/fs/cgroup")
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
_RUNTIME_STATES = (Path("/run/runc"), Path("/run/crun"))
_OTHERS = ("pybuild-test", "pybuild-bench", "pybuild-quickstart")  # who may run beside us
_OTHERS_NETWORKS = ("/netns/netns-", "/net/cni/")  # where buildah and BuildKit mount theirs
_PATIENCE = 30.0  # seconds that the kernel may take with what has been killed, on a busy host
_LONGEST_LOOK = 1.0  # seconds; what is longer was no look: somebody had stopped this process


class Watch:
    """`place` is the directory that the command works in, `group` a control group to start it in ("" for none)."""

    def __init__(self, place: Path, *, marker: str, group: str) -> None:
        self._place = str(place)
        self._marker = marker.encode()
        self.group = group
        self._engines: set[int] = set()
        self._pids = set(pids())
        self._namespaces = {name for pid in self._pids for name in _namespaces(pid)}
        self._host_mounts = _host_mounts()
        self._states = _states()
        self._temporary = set(os.listdir("/tmp"))

    def enclosed(self, argv: Sequence[str]) -> list[str]:
        """The command, to be started in the watched control group; its pid is that of the process you start."""
        if not self.group:
            return list(argv)
        return ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', f"{self.group}/cgroup.procs", *argv]

    def engine(self, pid: int) -> None:
        """This process is, or was, an engine: its control groups bear its number."""
        self._engines.add(pid)

    def members(self) -> list[int]:
        """Every process of the command that lives: what the test may kill."""
        return sorted(set(self._enclosed_pids()) | {pid for pid in self._new() if self._is_marked(pid)})

    def named(self, name: str) -> list[int]:
        """Those that call themselves so: `pybuild-launch`, `pybuild-step`."""
        return [pid for pid in self.members() if _read(f"/proc/{pid}/comm").strip() == name.encode()]

    def found(self) -> list[str]:
        """What is left at this moment, described."""
        return [*self._processes(), *self._mounts(), *self._groups(), *self._states_left(), *self._temporary_left()]

    def remaining(self, patience: float = _PATIENCE) -> list[str]:
        """What is still left when the kernel has had time to finish with what was killed."""
        seen = [["not looked yet"], ["nor again"]]  # twice, since a look is no snapshot: somebody may fork meanwhile

        def nothing() -> bool:
            seen.append(self.found())
            return not seen[-1] and not seen[-2]

        until(nothing, patience)
        return seen[-1]

    # --- processes and their namespaces -------------------------------------------------------------------

    def _processes(self) -> Iterator[str]:
        enclosed = set(self._enclosed_pids())
        for pid in sorted({*self._new(), *enclosed}):
            if pid in enclosed or self._is_marked(pid):
                yield f"process {pid}: {_describe(pid)}"
            elif _state(pid) == (True, os.getpid()) and (own := _namespaces(pid) - self._namespaces):
                yield f"orphan {pid} with {', '.join(sorted(own))}: {_describe(pid)}"

    def _new(self) -> set[int]:
        return set(pids()) - self._pids - {os.getpid()}

    def reap(self) -> None:
        """Take the orphans that have ended. The engines are for those to wait for who started them."""
        for pid in self._new() - self._engines:
            if _state(pid) == (False, os.getpid()):
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def _is_marked(self, pid: int) -> bool:
        return any(self._marker in _read(f"/proc/{pid}/{name}") for name in ("cmdline", "environ"))

    def _enclosed_pids(self) -> Iterator[int]:
        if self.group:
            for directory, _, _ in os.walk(self.group):
                yield from map(int, _read(f"{directory}/cgroup.procs").split())

    # --- everything else ----------------------------------------------------------------------------------

    def _mounts(self) -> Iterator[str]:
        """In whatever namespace: a process of somebody else may have copied ours while it lived."""
        for pid in pids():
            for line in _read(f"/proc/{pid}/mountinfo").decode(errors="replace").splitlines():
                if self._place in line:
                    yield f"mount of {pid}: {line}"
        for line in sorted(_host_mounts() - self._host_mounts):
            nsfs = " - nsfs " in line and not any(path in line for path in _OTHERS_NETWORKS)
            if nsfs or f" {SCRATCH}" in line:
                yield f"mount of the host: {line}"

    def _groups(self) -> Iterator[str]:
        """In every hierarchy; a step's group lies below the engine's own, or below what --cgroup-parent says."""
        names = re.compile(f"pybuild-[0-9]+-({'|'.join(map(str, self._engines or {0}))})-.*")
        for directory, folders, _ in os.walk(_GROUPS):
            for name in folders:
                if names.fullmatch(name) or (directory == self.group):
                    yield f"control group {directory}/{name}"

    def _states_left(self) -> Iterator[str]:
        for path in sorted(_states() - self._states):
            # others' containers come and go while we look: os.walk passes over what has gone
            files = (f"{directory}/{name}" for directory, _, names in os.walk(path) for name in names)
            texts = (_read(file).decode(errors="replace") for file in files)
            if Path(path).name == "step" or any(SCRATCH in text or self._place in text for text in texts):
                yield f"state of an OCI runtime: {path}"

    def _temporary_left(self) -> Iterator[str]:
        """The engine has no business in /tmp; what others put there has no such name."""
        for name in sorted(set(os.listdir("/tmp")) - self._temporary):
            if "pybuild" in name and not name.startswith(_OTHERS) and f"/tmp/{name}" not in self._place:
                yield f"temporary file /tmp/{name}"


@contextmanager
def watch(place: Path, *, marker: str) -> Iterator[Watch]:
    """Look at the host now. Whatever still runs at the end is killed, so that no test harms the next."""
    group = _make_group(f"test-{marker}")
    watching = Watch(place, marker=marker, group=group)
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield watching
    finally:
        _end(watching)
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 0)


def _end(watching: Watch) -> None:
    def gone() -> bool:
        for pid in watching.members():
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        watching.reap()
        with suppress(OSError):
            for directory, _, _ in os.walk(watching.group, topdown=False):
                os.rmdir(directory)
        return not watching.group or not os.path.isdir(watching.group)

    until(gone, _PATIENCE)


def files(root: Path) -> list[str]:
    """What a store should not hold while no command has it open, beside what `verify` finds."""
    found = [f"{name}/{entry}" for name in ("ingest", "leases", "locks") for entry in _names(root / name)]
    found += [f"trees/{entry}" for entry in _names(root / "trees") if entry.endswith(".probe")]
    for name in ("git", "http"):
        found += [f"{name}/{entry}" for entry in _names(root / name) if "." in entry]
    repositories = [root / "git" / name for name in _names(root / "git")]
    for repository in repositories:
        found += [str(path.relative_to(root)) for path in repository.rglob("*.lock")]
        found += [str(path.relative_to(root)) for path in (*repository.glob("index.*"), *repository.rglob("tmp_*"))]
    return sorted(found)


def until(condition: Callable[[], bool], patience: float = _PATIENCE) -> bool:
    """Wait for something outside this process, which cannot tell us; whether it came true.

    The time during which we were stopped does not count (SIGSTOP, a suspended machine): who stopped us has most
    likely stopped what we wait for.
    """
    waited, before = 0.0, time.monotonic()
    while not condition():
        if waited > patience:
            return False
        time.sleep(0.005)
        now = time.monotonic()
        waited, before = waited + min(now - before, _LONGEST_LOOK), now
    return True


def command_line(pid: int) -> bytes:
    """argv, each argument ended by a zero; nothing for a process that has ended."""
    return _read(f"/proc/{pid}/cmdline")


def parent(pid: int) -> int:
    """0 for a process that has ended."""
    return _state(pid)[1]


# --- looking at the host ---------------------------------------------------------------------------------------


def pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:  # it has ended
        return b""


def _names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory)) if directory.is_dir() else []


def _describe(pid: int) -> str:
    status = dict(line.split(":\t", 1) for line in _read(f"/proc/{pid}/status").decode().splitlines() if ":\t" in line)
    command = _read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace")
    return f"{status.get('Name')} [{status.get('State')}] parent {status.get('PPid')} {command!r}"


def _state(pid: int) -> tuple[bool, int]:
    """(whether it lives, its parent); a zombie does not live. (False, 0) for none."""
    found = re.search(r"^State:\t(.).*^PPid:\t(\d+)$", _read(f"/proc/{pid}/status").decode(), re.MULTILINE | re.DOTALL)
    return (found[1] not in "ZX", int(found[2])) if found else (False, 0)


def _namespaces(pid: int) -> set[str]:
    """`pid:[4026531836]` and so on, of one process; some processes keep theirs to themselves."""
    found = set()
    for kind in _NAMESPACES:
        with suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
    return found


def _host_mounts() -> set[str]:
    return {line for pid in (1, "self") for line in _read(f"/proc/{pid}/mountinfo").decode().splitlines()}


def _states() -> set[str]:
    names = {str(directory / name) for directory in _RUNTIME_STATES for name in _names(directory)}
    return {name for name in names if "/buildah-" not in name}


def _make_group(name: str) -> str:
    """A group in the hierarchy that counts processes; "" where there is none to be made."""
    for base in (_GROUPS / "pids", _GROUPS / "unified", _GROUPS):
        if (base / "cgroup.procs").exists():
            with suppress(OSError):
                (base / name).mkdir()
                return str(base / name)
    return ""
