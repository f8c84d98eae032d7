"""This interpreter, and what it has installed, as the image `interpreter` and a directory of packages: what a frontend
image of ours is made of where there is no network.

    frontend_image(store, tmp_path, "ours/frontend:1")             # in the store
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.builds import Store, write

ROOT = Path(__file__).parents[2]
OURS = ("buildengine", "cache", "frontends", "llb", "solver", "worker")
_NOT_NEEDED = (
    *("test", "tests", "idlelib", "ensurepip", "lib2to3", "tkinter", "turtledemo", "config-*", "site-packages"),
    *("distutils", "pydoc_data", "unittest", "*.opt-[12].pyc"),
)
_LOOK = """\
import importlib, json, pkgutil, sys
import buildengine.client.frontendimage, frontends, lark
for module in pkgutil.walk_packages(frontends.__path__, "frontends."):
    importlib.import_module(module.name)
with open("/proc/self/maps") as maps:
    mapped = sorted({"/" + line.rstrip("\\n").partition("/")[2] for line in maps if "/" in line})
installed = sorted({name.partition(".")[0] for name, module in sys.modules.items()
                    if "site-packages" in (getattr(module, "__file__", None) or "")})
print(json.dumps({"mapped": mapped, "installed": installed}))
"""


def _seen() -> dict[str, list[str]]:
    """What a process of the frontend has mapped, and the packages that it has imported."""
    done = subprocess.run([sys.executable, "-c", _LOOK], capture_output=True, check=True, cwd=ROOT)
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def packages(target: Path) -> Path:
    """`target`, with our packages in it and those that the frontends import."""
    for name in OURS:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    installed = next(Path(entry) for entry in sys.path if entry.endswith("site-packages"))
    for name in _seen()["installed"]:
        package = installed / name
        if package.is_dir() and name not in OURS:
            shutil.copytree(package, target / name, ignore=shutil.ignore_patterns("tests", "_tests"))
    subprocess.run([sys.executable, "-m", "compileall", "-q", target], check=True)
    return target


def make_interpreter(store: Store, work: Path) -> None:
    """Build the image `interpreter`: Python's program and library where they are here, and the system's libraries."""
    root = work / "rootfs"
    program, library = Path(os.path.realpath(sys.executable)), Path(os.__file__).resolve().parent
    _copy(program, root)
    shutil.copytree(library, _in(root, library), ignore=shutil.ignore_patterns(*_NOT_NEEDED), symlinks=True)
    for path in map(Path, _seen()["mapped"]):
        if path.is_file() and not path.is_relative_to(library) and "site-packages" not in str(path):
            _copy(path, root)
    (root / "usr/local/bin").mkdir(parents=True, exist_ok=True)
    (root / "usr/local/bin/python3").symlink_to(program)
    context = write(work, {"Dockerfile": "FROM scratch\nCOPY rootfs /\n"})
    store.command("build", context, "-t", "interpreter")


def frontend_image(store: Store, work: Path, name: str) -> None:
    """Build the frontend image of this project under `name`, on the image `interpreter`."""
    make_interpreter(store, work)
    given = ("--build-arg", "PYTHON=interpreter", "--build-context", f"packages={packages(work / 'packages')}")
    store.command("build", ROOT / "frontends/image", *given, "-t", name)


def _copy(path: Path, root: Path) -> None:
    """The file, under every name that leads to it: programs know a library by another than its own."""
    names = {path, *(other for other in path.parent.glob("*.so*") if other.resolve() == path)}
    if path.name.startswith("ld-"):
        names |= {Path(place, path.name) for place in ("/lib", "/lib64")}
    for name in names:
        target = _in(root, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)


def _in(root: Path, path: Path) -> Path:
    return root / str(path).lstrip("/")
