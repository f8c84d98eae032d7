"""The steps of examples/from-scratch run as root and as an ordinary user, show what they say, and leave nothing."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/from-scratch"
STEPS = [path.name for path in sorted(EXAMPLE.glob("0*.py"))]
SHOWN = {
    "01_namespaces.py": ["child: +I was on '(.*)', now I am on 'container'", "new are user, uts$", "I am still on"],
    "02_user.py": ["after the map: +uid 0", "machine's hostname: Operation not permitted", "now it is mine"],
    "03_processes.py": ["outside: I am .* child will be 1", "/proc shows .1.$", "orphan: .* parent is 1$"],
    "04_root.py": ["after: +bin, dev, etc, proc, tmp$", "fifty times ..: bin, dev", "I am busybox, and I see 5 names"],
    "05_overlay.py": [
        "one sees: .'motd'. and a new file: True",
        "two sees: .'motd', 'passwd'. and a new file: False",
        "etc/passwd: a whiteout, character device 0:0",
    ],
    "06_network.py": ["namespace has lo$", "the host says hello, 10.0.0.2", "beyond it: Network is unreachable"],
    "07_limits.py": ["may chroot: True, after dropping it: False", "chroot is refused"],
    "08_container.py": ["I am root, process 1 of container, networks: 1$", "^bye$"],
}


def run(*argv: str | Path) -> str:
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stdout
    return done.stdout


def check(step: str, told: str) -> None:
    for pattern in SHOWN[step]:
        assert re.search(pattern, told, re.MULTILINE), f"{pattern} is not in\n{told}"


@pytest.fixture
def as_anybody() -> Iterator[list[str | Path]]:
    """A command that runs a step as an ordinary user: Debian's Python, a copy and a /proc that he may read."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        steps = shutil.copytree(EXAMPLE, Path(place, "steps"))
        become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        yield ["unshare", "--pid", "--fork", "--mount-proc", *become, "/usr/bin/python3", "-B", steps]


@pytest.mark.parametrize("step", STEPS)
def test_a_step_shows_what_it_is_about(step: str) -> None:
    host = (socket.gethostname(), Path("/proc/self/mountinfo").read_bytes(), socket.if_nameindex())
    told = run(sys.executable, "-B", EXAMPLE / step)
    check(step, told)
    assert (socket.gethostname(), Path("/proc/self/mountinfo").read_bytes(), socket.if_nameindex()) == host


@pytest.mark.parametrize("step", [step for step in STEPS if step != "07_limits.py"])
def test_an_ordinary_user_may_run_it(step: str, as_anybody: list[str | Path]) -> None:
    *command, steps = as_anybody
    check(step, run(*command, Path(steps, step)))


def test_a_control_group_limits_processes() -> None:
    told = run(sys.executable, "-B", EXAMPLE / "07_limits.py")
    assert "with 4 children, fork says: Resource temporarily unavailable" in told


def test_a_file_made_by_root_inside_belongs_to_the_user_outside(as_anybody: list[str | Path]) -> None:
    *command, steps = as_anybody
    told = run(*command, Path(steps, "02_user.py"))
    assert "inside, the file belongs to uid 0" in told
    assert "outside, the file belongs to uid 65534" in told


def test_a_container_of_an_unpacked_directory(tmp_path: Path) -> None:
    make_base = EXAMPLE.parent / "quickstart/make-base"
    run(make_base, tmp_path / "base")
    root = tmp_path / "base/rootfs"
    before = sorted(os.listdir(root))
    told = run(sys.executable, "-B", EXAMPLE / "08_container.py", root, "sh", "-c", "rm -r /etc; echo $PATH; ls /")
    assert told.splitlines()[0].startswith("/usr/local/sbin:")
    assert "etc" not in told.splitlines()
    assert sorted(os.listdir(root)) == before


def test_every_step_is_short_and_needs_the_standard_library_only() -> None:
    own = {path.stem for path in EXAMPLE.glob("*.py")}
    for path in EXAMPLE.glob("*.py"):
        assert len(path.read_text().splitlines()) < 100, path.name
        imported = set(re.findall(r"^(?:import|from) (\w+)", path.read_text(), re.MULTILINE))
        assert imported <= own | sys.stdlib_module_names, path.name


def test_the_readme_names_every_step() -> None:
    assert re.findall(r"^\| `(\d.*\.py)`", (EXAMPLE / "README.md").read_text(), re.MULTILINE) == STEPS
