"""The fake gateway of the testing kit works out the trees that the engine makes."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from frontends.testing import FakeGateway, run_on, trees
from tests.builds import FIXTURES, Store, write

pytest_plugins = [FIXTURES]

BUILD = """
import llb

async def build(ctx):
    context = await ctx.context(include=["src", "*.md", "deep/**/*.txt"], exclude=["**/*.log"])
    copies = llb.copy(context, "src", "/as")
    copies = copies.copy(context, "src", "/contents", contents=True).mkdir("/in").copy(context, "src", "/in")
    copies = copies.copy(context, "src", "/in/").copy(context, "src/a", "/file")
    copies = copies.copy(context, "src/a", "/dir/", parents=True).copy(context, "*.md", "/", wildcard=True)
    copies = copies.copy(context, "no*", "/", wildcard=True, allow_empty_wildcard=True)
    copies = copies.copy(context, "/", "/all", contents=True, exclude=["src/b"]).copy(context, "src/a", "/in")
    copies = copies.copy(context, "deep", "/deeper/and/deeper", parents=True, contents=True, mode=0o600)
    lower = llb.scratch().file(llb.mkfile("/one", b"1").mkfile("/two", b"1").symlink("one", "/link"))
    upper = lower.file(llb.mkfile("/two", b"2").mkdir("/d", mode=0o700).mkfile("/d/three", b"3", mode=0o755).rm("/one"))
    files = await ctx.solve(llb.merge([lower, llb.scratch().file(llb.mkfile("/over", b"over"))]))
    assert await files.read("/link") == b"1", await files.read("/link")
    assert [each.path for each in await files.list("/")] == ["link", "one", "over", "two"]
    assert (await files.stat("/link")).size == 1
    assert not await files.exists("/three")
    changed = llb.diff(lower, upper)
    return llb.merge([llb.scratch().file(copies), changed])
"""
FILES = {
    "src/a": "a\n",
    "src/b": "b\n",
    "src/c/d": "d\n",
    "src/c/e.log": "no\n",
    "one.md": "1\n",
    "two.md": "2\n",
    "other": "no\n",
    "deep/er/x.txt": "x\n",
    "deep/er/x.bin": "no\n",
    ".dockerignore": "src/c/f\n",
}


async def test_the_fake_makes_the_trees_that_the_engine_makes(store: Store, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {**FILES, "build.py": BUILD})
    await store.build(context, "-f", context / "build.py", "-o", tmp_path / "out")
    gateway = FakeGateway(files=FILES)
    names: dict[str, Any] = {}
    exec(BUILD, names)
    fake = await run_on(names["build"], gateway)
    definition = fake.image.result.definition
    assert definition is not None
    made = trees.evaluate(definition, gateway.tree, lambda node: {})
    engine = {}
    for path in sorted((tmp_path / "out").rglob("*")):
        status = path.lstat()
        regular, link = stat.S_ISREG(status.st_mode), stat.S_ISLNK(status.st_mode)
        data, target = path.read_bytes() if regular else b"", str(path.readlink()) if link else ""
        engine[str(path.relative_to(tmp_path / "out"))] = trees.Entry(mode=status.st_mode, data=data, link=target)
    assert dict(sorted(made.items())) == engine
