"""Cache truth of files: which changes to a build context run a step again, and which keep every hit.

Each build here has an engine of its own, opened anew, as the command has it. What is asserted is which instructions
ran: a step that ran without need is as wrong as one that did not.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builds import FIXTURES, Store, write
from tests.fakes.two_copies import ALL, DOCKERFILE, again

pytest_plugins = [FIXTURES]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write(tmp_path / "context", {"Dockerfile": DOCKERFILE, "one": "1", "two": "2", "other": "x"})


# --- files of the context -----------------------------------------------------------------------------------------


async def test_the_first_build_runs_everything_and_the_second_nothing(store: Store, context: Path) -> None:
    first = await store.build(context)
    assert (first.ran, first.cached) == (ALL, [])
    second = await store.build(context)
    assert (second.ran, second.cached) == ([], ALL)


async def test_the_command_and_an_engine_in_this_process_share_the_cache(store: Store, context: Path) -> None:
    assert store.command("build", context).ran == ALL
    assert await again(store, context) == []


def touch(context: Path) -> None:
    for name in ("one", "two", "."):
        os.utime(context / name, ns=(1, 1))


def copy_anew(context: Path) -> None:
    """Another inode, another owner, another time, the same bytes and mode."""
    for name in ("one", "two"):
        (context / name).rename(context.parent / name)
        (context / name).write_bytes((context.parent / name).read_bytes())
        os.chown(context / name, 1234, 5678)


def change_others(context: Path) -> None:
    write(context, {"other": "changed", "new/file": "x", "Dockerfile": "# a remark\n" + DOCKERFILE})


def hard_link(context: Path) -> None:
    (context / "linked").hardlink_to(context / "one")


@pytest.mark.parametrize("change", [touch, copy_anew, change_others, hard_link])
async def test_what_does_not_change_a_copied_file_keeps_every_hit(
    store: Store, context: Path, change: Callable[[Path], None]
) -> None:
    await store.build(context)
    change(context)
    assert await again(store, context) == []


async def test_a_moved_context_keeps_every_hit(store: Store, context: Path, tmp_path: Path) -> None:
    await store.build(context)
    assert await again(store, context.rename(tmp_path / "elsewhere")) == []


def change_a_byte(file: Path) -> None:
    file.write_text("3")


def change_a_byte_and_put_the_stamp_back(file: Path) -> None:
    was = file.stat()
    with open(file, "r+") as opened:
        opened.write("3")
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (was.st_size, was.st_mtime_ns)


def swap_for_another_inode_with_the_same_stamp(file: Path) -> None:
    was = file.stat()
    other = file.with_name("swapped")
    other.write_text("3")
    os.utime(other, ns=(was.st_atime_ns, was.st_mtime_ns))
    other.rename(file)


def change_the_mode(file: Path) -> None:
    file.chmod(0o755)


def replace_by_a_directory(file: Path) -> None:
    file.unlink()
    write(file, {"one": "1"})


CHANGES = [change_a_byte, change_a_byte_and_put_the_stamp_back, swap_for_another_inode_with_the_same_stamp]


@pytest.mark.parametrize("change", [*CHANGES, change_the_mode])
async def test_a_changed_file_runs_its_dependants_alone(
    store: Store, context: Path, change: Callable[[Path], None]
) -> None:
    await store.build(context)
    change(context / "two")
    assert await again(store, context) == ALL[2:]
    change(context / "one")
    assert await again(store, context) == ALL


async def test_a_file_is_never_believed_however_soon_it_changes_after_a_build(store: Store, tmp_path: Path) -> None:
    """The clock of a file system ticks every few ms: a change in the tick of the scan leaves the stamp as it was."""
    context = write(tmp_path / "context", {"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "00"})
    async with store.engine() as engine:
        await engine.build(context)
        for turn in range(1, 25):
            with open(context / "file", "r+") as opened:
                opened.write(f"{turn:02}")
            assert (await engine.build(context)).ran == ["COPY file /"], turn


def test_the_program_believes_no_stamp_either(store: Store, context: Path) -> None:
    assert store.command("build", context).ran == ALL
    touch(context)
    assert store.command("build", context).ran == []
    change_a_byte_and_put_the_stamp_back(context / "two")
    assert store.command("build", context).ran == ALL[2:]


async def test_a_change_that_is_taken_back_finds_the_old_result(store: Store, context: Path) -> None:
    await store.build(context)
    (context / "two").write_text("3")
    await store.build(context)
    (context / "two").write_text("2")
    assert await again(store, context) == []


async def test_a_directory_counts_by_names_modes_and_links_in_it(store: Store, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": "FROM scratch\nCOPY d /d\n", "d/a": "a", "d/sub/b": "b"})
    (context / "d/link").symlink_to("a")
    changes: list[Callable[[], object]] = [
        lambda: (context / "d/a").rename(context / "d/renamed"),
        lambda: (context / "d/sub").rename(context / "d/sub2"),
        lambda: ((context / "d/link").unlink(), (context / "d/link").symlink_to("sub2/b")),
        lambda: (context / "d/sub2").chmod(0o700),
        lambda: (context / "d/renamed").chmod(0o4755),
        lambda: (context / "d/empty").mkdir(),
        lambda: ((context / "d/link").unlink(), (context / "d/link").write_text("sub2/b")),
        lambda: os.setxattr(context / "d/renamed", "user.x", b"1"),
        lambda: (context / "d/renamed").unlink(),
    ]
    await store.build(context)
    for number, change in enumerate(changes):
        change()
        assert await again(store, context) == ["COPY d /d"], number
        assert await again(store, context) == [], number


async def test_a_link_that_is_copied_by_name_counts_by_what_it_leads_to(store: Store, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": "FROM scratch\nCOPY link /f\n", "a": "same", "b": "same"})
    (context / "link").symlink_to("a")
    await store.build(context)
    (context / "link").unlink()
    (context / "link").symlink_to("b")
    assert await again(store, context) == [], "another way to the same bytes"
    (context / "b").write_text("other")
    assert await again(store, context) == ["COPY link /f"]


async def test_a_wildcard_counts_by_the_names_it_matches(store: Store, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": "FROM scratch\nCOPY *.txt /d/\n", "a.txt": "1", "b.txt": "2"})
    await store.build(context)
    write(context, {"c.md": "no match"})
    assert await again(store, context) == []
    (context / "b.txt").rename(context / "c.txt")
    assert await again(store, context) == ["COPY *.txt /d/"]
    write(context, {"d.txt": ""})
    assert await again(store, context) == ["COPY *.txt /d/"]


async def test_ignored_and_excluded_files_do_not_matter(store: Store, tmp_path: Path) -> None:
    dockerfile = """\
        FROM scratch AS docs
        COPY --exclude=*.md docs /docs
        FROM scratch
        COPY --from=docs /docs /gathered
        COPY . /all
        """
    context = write(
        tmp_path / "context",
        {
            "Dockerfile": dockerfile,
            ".dockerignore": "*.log\nbuild/*\n!build/keep\nDockerfile\n.dockerignore\ndocs/hidden\n",
            **dict.fromkeys(("a", "debug.log", "build/out", "build/keep", "docs/a.txt", "docs/hidden"), "x"),
        },
    )
    docs, gathered, everything = "COPY --exclude=*.md docs /docs", "COPY --from=docs /docs /gathered", "COPY . /all"
    assert sorted((await store.build(context)).ran) == sorted([docs, gathered, everything])
    write(context, dict.fromkeys(("debug.log", "new.log", "build/out", "build/new", "docs/hidden"), "y"))
    assert await again(store, context) == []
    write(context, {".dockerignore": (context / ".dockerignore").read_text() + "*.tmp\n", "x.tmp": ""})
    assert await again(store, context) == [], "another ignore file, the same files"
    write(context, {"docs/a.md": "y"})
    assert await again(store, context) == [everything]
    write(context, {"build/keep": "y"})
    assert await again(store, context) == [everything]
    write(context, {"docs/a.txt": "y"})
    assert sorted(await again(store, context)) == sorted([docs, gathered, everything])
    write(context, {".dockerignore": "*.log\ndocs/hidden\n"})
    assert await again(store, context) == [everything], "more is copied now"
