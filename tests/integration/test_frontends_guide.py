"""docs/frontends.md: its blocks, one after the other, in one directory, as a reader would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.builds import FIXTURES, PYBUILD, Store, write

pytest_plugins = [FIXTURES]

GUIDE = Path(__file__).resolve().parents[2] / "docs/frontends.md"
# Nothing runs on another platform here, so what stands for it is empty.
ALPINE = """
import llb
from frontends import Image

async def build(ctx):
    other = Image.of(llb.scratch().file(llb.mkfile("/other", b"")))
    return {each: await ctx.image("base", platform=each) if each == ctx.build_platform else other
            for each in ctx.platforms}
"""
# Installs a project as far as it goes without a network: its package, and metadata that names its entry point.
PIP = """
import pathlib, shutil, sys, tomllib
if "-e" in sys.argv:
    project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
    ((name, value),) = project["entry-points"]["pybuild.frontends"].items()
    site, package = pathlib.Path(__file__).with_name("site"), value.partition(":")[0]
    information = site / f"{package}-{project['version']}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: {project['name']}\\nVersion: 1\\n")
    (information / "entry_points.txt").write_text(f"[pybuild.frontends]\\n{name} = {value}\\n")
    shutil.copytree(package, site / package)
"""
_BLOCK = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """`about` is the file to write, or `fails` of commands that are refused."""

    language: str
    about: str
    text: str


def blocks() -> list[Block]:
    return [Block(*match.groups()) for match in _BLOCK.finditer(GUIDE.read_text())]


def test_the_guide_does_what_it_says(store: Store, tmp_path: Path) -> None:
    index = write(tmp_path / "index", {"build.py": ALPINE})
    both = ("--platform", "linux/amd64,linux/arm64")
    store.command("build", "-f", index / "build.py", *both, "-t", "alpine:3.20", "--load", index)
    store.command("image", "tag", "base", "registry.example/pybuild-frontend:1")
    place, said = tmp_path / "place", ""
    place.mkdir()
    for block in blocks():
        if block.language == "sh":
            said, place = shell(block, store, place)
        elif block.language == "text":
            for line in block.text.splitlines():
                assert line in said, f"{line!r} is not in\n{said}"
        else:
            (place / block.about).write_text(block.text)


def shell(block: Block, store: Store, place: Path) -> tuple[str, Path]:
    """What the commands print, on both streams, and the directory that they end in."""
    beside = store.root.parent / "bin"
    beside.mkdir(exist_ok=True)
    (beside / "pip").write_text(f"#!{sys.executable}\n{PIP}")
    (beside / "pip").chmod(0o755)
    path = f"{beside}:{PYBUILD.parent}:{os.environ['PATH']}"
    site = {"PYTHONPATH": str(beside / "site"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment = {**store.environment, **site, "PATH": path}
    argv = ["bash", "-euo", "pipefail", "-c", f"{block.text}pwd > {beside}/place"]
    done = subprocess.run(
        argv, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert (done.returncode == 0) == (block.about != "fails"), f"{block.text}\n{done.stdout}"
    return done.stdout, place if block.about == "fails" else Path((beside / "place").read_text().strip())


def test_every_block_is_one_that_the_test_understands() -> None:
    text = GUIDE.read_text()
    assert len(blocks()) * 2 == text.count("```")
    written = {block.about for block in blocks() if block.language not in ("sh", "text")}
    assert all(written)
    used = "\n".join(block.text for block in blocks())
    for file in written - {"pytest.ini"}:  # pytest finds it
        assert file in used, f"{file} is written, and never built"


def test_the_guide_names_everything_that_authors_have() -> None:
    import frontends
    import llb

    text = GUIDE.read_text()
    for name in (*frontends.__all__, *llb.__all__):
        if name not in ("ExecState", "Place", "SourceFile"):  # what other names give
            assert f"`{name}`" in text or f"llb.{name}" in text, name
