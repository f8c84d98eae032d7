"""State directories that are somebody else's, broken, read-only or full; and a directory that imitates our modules."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes.hostile import Attack

pytest_plugins = ["tests.fakes.hostile_fixtures"]

TEXT = "FROM scratch\nCOPY a /a\n"


def _write(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda root: (root / name).write_bytes(data)


def _sql(*statements: str) -> Callable[[Path], object]:
    def change(root: Path) -> None:
        connection = sqlite3.connect(root / "meta.db")
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()

    return change


def _replace(name: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    def change(root: Path) -> None:
        path = root / name
        path.rename(root / "ingest" / "old")
        make(path)

    return change


# name: (what is done to a good store, what the report says, status)
BROKEN: dict[str, tuple[Callable[[Path], object], str, int]] = {
    "of another version": (_write("version", b"999\n"), "has format '999', this pybuild has format", 4),
    "of no version": (_write("version", b"\xff\xfe\0"), "has format", 4),
    "of a version that is a directory": (_replace("version", lambda path: path.mkdir()), "Is a directory", 4),
    "of a version that is a link": (
        _replace("version", lambda path: path.symlink_to("/etc/shadow")),
        "has format",
        4,
    ),
    "without a database": (_replace("meta.db", lambda path: path.mkdir()), "the store's metadata", 4),
    "with garbage for a database": (_write("meta.db", b"garbage" * 1000), "file is not a database", 4),
    "with half a database": (lambda root: os.truncate(root / "meta.db", 5000), "the store's metadata", 4),
    "with a database of another version": (_sql("PRAGMA user_version=77"), "has format '77'", 4),
    "with a database without tables": (_sql("DROP TABLE layers"), "no such table: layers", 4),
    "with a file for a folder": (_replace("layers", lambda path: path.touch()), "cannot use", 3),
    "of somebody else": (lambda root: os.chown(root, 1000, 1000), "belongs to user 1000", 3),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_store(attack: Attack, name: str) -> None:
    break_it, fragment, status = BROKEN[name]
    root = attack.directory / "root"
    attack.build(TEXT, files={"a": "x"}, root=root).harmless()
    break_it(root)
    outcome = attack.build(TEXT, files={"a": "x"}, root=root).refused(fragment, "hint:", status=status)
    assert outcome.ended.seconds < 20
    outcome = attack.run("image", "ls", root=root)
    assert outcome.ended.status in (0, status)


@pytest.mark.parametrize("name", ["/etc", "/", "/proc", "/dev/null", "/proc/nope", "/sys/kernel/nope"])
def test_a_directory_that_cannot_be_a_store(attack: Attack, name: str) -> None:
    outcome = attack.build(TEXT, root=Path(name))
    assert outcome.ended.status in (3, 4), outcome.ended.text
    assert "hint: name" in outcome.ended.report


def test_a_directory_with_folders_of_the_same_names(attack: Attack) -> None:
    """Nothing of somebody's is swept away because it is called `layers`."""
    root = attack.directory / "root"
    (root / "layers/mine").mkdir(parents=True)
    (root / "blobs").mkdir()
    attack.build(TEXT, root=root).refused("is no state directory of pybuild", status=4)
    assert (root / "layers/mine").is_dir()


def test_a_store_is_for_its_owner_only(attack: Attack) -> None:
    root = attack.directory / "root"
    root.mkdir(mode=0o777)
    root.chmod(0o777)
    attack.build(TEXT, files={"a": "x"}, root=root).harmless()
    assert root.stat().st_mode & 0o777 == 0o700


def _mount(attack: Attack, *arguments: object, program: str = "mount") -> None:
    """Where the commands will see it: another test may have put this process into a namespace of its own."""
    place = ("nsenter", f"--mount=/proc/{attack.commands.pid}/ns/mnt")
    subprocess.run([*place, program, *map(str, arguments)], check=True)


@contextmanager
def _tmpfs(attack: Attack, options: str) -> Iterator[Path]:
    directory = attack.directory / "disk"
    directory.mkdir()
    _mount(attack, "-t", "tmpfs", "-o", options, "pybuild-test", directory)
    try:
        yield directory
    finally:
        _mount(attack, "-l", directory, program="umount")


def test_a_read_only_store(attack: Attack) -> None:
    with _tmpfs(attack, "size=20m") as disk:
        attack.build(TEXT, files={"a": "x"}, root=disk / "root").harmless()
        _mount(attack, "-o", "remount,ro", disk)
        for arguments in (("image", "ls"), ("du",), ("prune", "-f"), ("debug", "verify-store")):
            attack.run(*arguments, root=disk / "root").refused("Read-only file system", "hint:", status=3)
        attack.build(TEXT, files={"a": "x"}, root=disk / "root").refused("Read-only file system", status=3)
        attack.build(TEXT, files={"a": "x"}, root=disk / "new").refused("Read-only file system", status=3)


@pytest.mark.parametrize("size", ["100k", "400k", "1m", "3m", "7m"])
def test_a_full_store(attack: Attack, size: str) -> None:
    """Wherever the space ends, it is said, and the store works again when there is some."""
    files = {"a": os.urandom(2 << 20)}
    text = "FROM scratch\nCOPY a /a\nCOPY a /b\n"
    with _tmpfs(attack, f"size={size}") as disk:
        image = attack.directory / "image.tar"
        outcome = attack.build(text, "-o", f"type=oci,dest={image}", files=files, root=disk / "root")
        if outcome.ended.status:
            assert "full" in outcome.ended.report or "No space left" in outcome.ended.report, outcome.ended.text
            assert outcome.ended.status in (3, 4)
            assert "hint:" in outcome.ended.report
        _mount(attack, "-o", "remount,size=50m", disk)
        attack.build(text, "-o", f"type=oci,dest={image}", files=files, root=disk / "root").harmless()
        attack.run("debug", "verify-store", root=disk / "root").harmless()


def test_a_full_output(attack: Attack) -> None:
    with _tmpfs(attack, "size=1m") as disk:
        for output in (f"type=oci,dest={disk}/image.tar", f"type=local,dest={disk}/out", f"type=tar,dest={disk}/x.tar"):
            outcome = attack.build(TEXT, "-o", output, files={"a": os.urandom(2 << 20)})
            assert outcome.ended.status in (1, 4), outcome.ended.text
            assert "No space left on device" in outcome.ended.report
        assert [name for name in os.listdir(attack.commands.inside(disk)) if name.endswith(".tar")] == []


# --- the directory we are started in ----------------------------------------------------------------------------

MODULES = ["cache", "worker", "solver", "llb", "frontends", "buildengine", "tests"]
MODULES += ["trio", "click", "lark", "rich", "blake3", "google", "isal", "h11", "backports", "sitecustomize"]
MODULES += ["os", "json", "encodings", "site", "usercustomize", "typing", "sqlite3", "ctypes", "tomllib"]


def test_a_directory_that_imitates_our_modules(attack: Attack) -> None:
    """It is where the command is started, the context, and the home; none of it is imported."""
    mark = attack.directory / "imported"
    evil = f"open({str(mark)!r}, 'a').write(__name__ + '\\n')\nraise SystemExit('imported ' + __name__)\n"
    files = {f"{name}/__init__.py": evil for name in MODULES} | {f"{name}.py": evil for name in MODULES}
    context = attack.context({"Dockerfile": "FROM base\nCOPY . /x\nRUN test -e /x/trio.py\n", **files})
    for where in (".", str(context)):
        outcome = attack.run(
            *("build", "-o", "type=cacheonly", "--no-cache", where),
            cwd=context,
            fresh=True,
            environment={"HOME": str(context), "PWD": str(context)},
        )
        outcome.harmless()
    assert not mark.exists(), mark.read_text()


def test_a_directory_that_is_gone(attack: Attack) -> None:
    gone = attack.directory / "gone"
    gone.mkdir()
    prefix = ("sh", "-c", f'rmdir "{gone}"; exec "$@"', "sh")
    outcome = attack.run("build", ".", cwd=gone, prefix=prefix)
    outcome.refused("the current directory no longer exists", "hint: cd to one that does")
