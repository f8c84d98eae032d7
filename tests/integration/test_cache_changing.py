"""Files that change while a build reads them: the build sees one state of them, or says which file it was.

What must never happen is a result of one state under the key of another: the cache would repeat it for ever. So
each test ends with the files as they were at first, and looks at what a build then makes of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cache import filehash
from tests.builds import FIXTURES, Store, write
from worker.layers import copytree

pytest_plugins = [FIXTURES]

FILES: dict[str, str | bytes] = {"d/a": "a", "d/b": "b", "d/sub/c": "c"}
COPY = "FROM scratch\nCOPY d /d\n"
BIND = "FROM base\nRUN --mount=type=bind,source=d,target=/src cp -a /src /d\n"


Delay = Callable[[pytest.MonkeyPatch, Callable[[], object]], None]


class Files:
    """The context, and how it is put back."""

    def __init__(self, root: Path, dockerfile: str) -> None:
        self.root = write(root, FILES | {"Dockerfile": dockerfile})
        (root / "d/link").symlink_to("a")

    @property
    def now(self) -> dict[str, object]:
        return tree(self.root / "d")

    def reset(self) -> None:
        for path in sorted((self.root / "d").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        Files(self.root, (self.root / "Dockerfile").read_text())
        (self.root / "d/sub").chmod(0o755)


def tree(root: Path) -> dict[str, object]:
    """What is below a directory: of each path its kind and mode, and what is in it."""
    found: dict[str, object] = {}
    for path in root.rglob("*"):
        mode = path.lstat().st_mode
        content = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else None
        marks = os.listxattr(path, follow_symlinks=False)
        found[str(path.relative_to(root))] = (oct(mode), content, [name for name in marks if name == "user.mark"])
    return found


def put_stamp_back(path: Path, change: Callable[[], object]) -> None:
    was = path.stat()
    change()
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "another byte": lambda d: (d / "a").write_text("x"),
    "another byte under the old stamp": lambda d: put_stamp_back(d / "a", lambda: (d / "a").write_text("x")),
    "longer": lambda d: (d / "sub/c").write_text("longer"),
    "mode": lambda d: (d / "a").chmod(0o600),
    "attribute of a directory": lambda d: os.setxattr(d / "sub", "user.mark", b"x"),
    "mode of a directory": lambda d: (d / "sub").chmod(0o700),
    "gone": lambda d: (d / "b").unlink(),
    "another inode": lambda d: (write(d.parent, {"new": "x"}), (d.parent / "new").rename(d / "a")),
    "renamed": lambda d: (d / "b").rename(d / "z"),
    "added": lambda d: write(d, {"sub/new": "n"}),
    "another link": lambda d: ((d / "link").unlink(), (d / "link").symlink_to("b")),
    "a file becomes a link": lambda d: ((d / "b").unlink(), (d / "b").symlink_to("a")),
    "a link becomes a file": lambda d: ((d / "link").unlink(), (d / "link").write_text("a")),
    "a directory becomes a link": lambda d: ((d / "sub").rename(d / "moved"), (d / "sub").symlink_to("moved")),
    "a file becomes a directory": lambda d: ((d / "b").unlink(), write(d, {"b/b": "b"})),
    "a directory is gone": lambda d: ((d / "sub/c").unlink(), (d / "sub").rmdir()),
}


def before_each_copy(monkeypatch: pytest.MonkeyPatch, happen: Callable[[], object]) -> None:
    """`happen` comes between the moment at which a copy's key is known and the copy."""
    copy = copytree.copy

    async def delayed(*arguments: Any, **options: Any) -> Any:
        happen()
        return await copy(*arguments, **options)

    monkeypatch.setattr(copytree, "copy", delayed)


def after_each_file(monkeypatch: pytest.MonkeyPatch, happen: Callable[[], object]) -> None:
    """`happen` comes when a file has been read for a key, before anything is made of that."""
    read = filehash.hash_open_file

    def delayed(*arguments: Any, **options: Any) -> Any:
        try:
            return read(*arguments, **options)
        finally:
            happen()

    monkeypatch.setattr(filehash, "hash_open_file", delayed)


def append(path: Path) -> None:
    with open(path, "a") as file:
        file.write("x")


def once(function: Callable[[], object]) -> Callable[[], object]:
    todo = [function]
    return lambda: todo and todo.pop()()


async def made(store: Store, files: Files, out: Path) -> dict[str, object]:
    await store.build(files.root, "-o", out)
    return tree(out / "d")


CASES = [
    *((name, COPY) for name in CHANGES),
    *((name, BIND) for name in ("another byte", "gone", "added", "a directory becomes a link")),
]


@pytest.mark.parametrize(("name", "dockerfile"), CASES)
@pytest.mark.parametrize("delay", [before_each_copy, after_each_file])
async def test_one_change_and_the_build_sees_one_state(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, dockerfile: str, delay: Delay
) -> None:
    files = Files(tmp_path / "context", dockerfile)
    at_first = files.now
    delay(monkeypatch, once(lambda: CHANGES[name](files.root / "d")))
    result = await made(store, files, tmp_path / "out1")
    monkeypatch.undo()
    assert result in (at_first, files.now)
    assert await made(store, files, tmp_path / "out2") == files.now
    files.reset()
    assert files.now == at_first
    assert await made(store, files, tmp_path / "out3") == at_first


@pytest.mark.parametrize("dockerfile", [COPY, BIND], ids=["copy", "bind"])
@pytest.mark.parametrize("delay", [before_each_copy, after_each_file])
async def test_what_never_stops_changing_is_an_error_that_names_it(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dockerfile: str,
    delay: Delay,
) -> None:
    files = Files(tmp_path / "context", dockerfile)
    at_first = files.now
    delay(monkeypatch, lambda: append(files.root / "d/a"))
    failed = await store.build(files.root, status=1)
    assert "d/a changed while" in failed.error
    monkeypatch.undo()
    files.reset()
    assert await made(store, files, tmp_path / "out") == at_first


async def test_a_second_look_never_contradicts_the_first(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file has been made a key of already when another is found changed, and the first has changed as well."""
    dockerfile = "FROM scratch\nCOPY d/a /d/a\nFROM scratch\nCOPY --from=0 /d /d\nCOPY d/b /d/b\n"
    files = Files(tmp_path / "context", dockerfile)
    reads: list[int] = []

    def change_both_at_the_second() -> None:
        reads.append(len(reads))
        if reads[-1] == 1:
            append(files.root / "d/a")
            append(files.root / "d/b")

    after_each_file(monkeypatch, change_both_at_the_second)
    assert await made(store, files, tmp_path / "out1") == {n: files.now[n] for n in ("a", "b")}
    assert len(reads) > 2
    monkeypatch.undo()
    files.reset()
    assert await made(store, files, tmp_path / "out2") == {n: files.now[n] for n in ("a", "b")}


async def test_a_build_that_begins_anew_says_why(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(tmp_path / "context", COPY + "COPY d/b /b\n")
    before_each_copy(monkeypatch, once(lambda: append(files.root / "d/a")))
    built = await store.build(files.root)
    assert built.ran == ["COPY d /d", "COPY d/b /b"]
    assert [outcome for outcome in built.step("COPY d /d").outcomes if outcome not in ("unstarted", "running")] == [
        "failed",
        "done",
    ]


async def test_a_changed_file_that_nobody_copies_disturbs_nobody(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(tmp_path / "context", COPY)
    write(files.root, {"log": ""})
    after_each_file(monkeypatch, lambda: append(files.root / "log"))
    before_each_copy(monkeypatch, lambda: append(files.root / "log"))
    assert (await store.build(files.root)).ran == ["COPY d /d"]


async def test_an_attribute_counts_also_where_files_are_linked_from_an_earlier_layer(
    store: Store, tmp_path: Path
) -> None:
    """A copy of many files takes those that are the same from the layer that it made last time."""
    many: dict[str, str | bytes] = {f"d/{number}": str(number) for number in range(300)}
    context = write(tmp_path / "context", many | {"Dockerfile": "FROM base\nCOPY d /d\nRUN true\n"})
    await store.build(context)
    os.setxattr(context / "d/7", "user.note", b"new")
    (context / "d/8").write_text("changed")
    await store.build(context, "-o", f"type=local,dest={tmp_path / 'out'}")
    assert os.getxattr(tmp_path / "out/d/7", "user.note") == b"new"
    assert (tmp_path / "out/d/8").read_text() == "changed"
