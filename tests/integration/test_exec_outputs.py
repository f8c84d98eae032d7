"""The results of an exec are its mounts in order, whatever numbers a client gives them: definition to files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from buildengine.builder import Export
from buildengine.digest import Digest
from llb import codec, ops
from llb.definition import Definition
from llb.ops import NO_OUTPUT, Input, Mount, MountType, Op
from tests.builds import FIXTURES, Store
from tests.fakes.given_definition import solve
from tests.fakes.runtime_steps import make_rootfs

pytest_plugins = [FIXTURES]

# numbers that neither begin at 0 nor rise; between them what is no result although it has a number or a tree
MOUNTS = (
    Mount(dest="/b", output=5),
    Mount(dest="/scratch", output=0, type=MountType.TMPFS),
    Mount(dest="/", input=0, output=9),
    Mount(dest="/unkept", input=0, output=NO_OUTPUT),
    Mount(dest="/a", output=2),
)
RESULTS = ("b", "root", "a")  # what is written into each result, in the order of MOUNTS
WRITE = "echo b > /b/mark; echo root > /mark; echo a > /a/mark; echo none > /scratch/mark; echo none > /unkept/mark"


def definition(operations: Sequence[Op], index: int) -> Definition:
    """These operations; result `index` of the last one is the result."""
    terminal = Op(inputs=(Input(digest=Digest.sha256(codec.encode(operations[-1])), index=index),))
    return Definition(ops=tuple(map(codec.encode, (*operations, terminal))))


def step() -> tuple[Op, Op]:
    base = Op(payload=ops.SourceOp(identifier="local://rootfs"))
    meta = ops.Meta(args=("/bin/sh", "-c", WRITE), env=("PATH=/bin",))
    needs = (Input(digest=Digest.sha256(codec.encode(base)), index=0),)
    return base, Op(inputs=needs, payload=ops.ExecOp(meta=meta, mounts=MOUNTS))


@pytest.mark.parametrize("index", range(len(RESULTS)))
async def test_results_count_the_mounts(index: int, empty_store: Store, tmp_path: Path) -> None:
    rootfs = make_rootfs(tmp_path / "rootfs")
    to_files = Export(type="local", dest=str(tmp_path / "out"))
    await solve(empty_store, definition(step(), index), to_files, {"rootfs": rootfs})
    assert (tmp_path / "out/mark").read_text() == RESULTS[index] + "\n"
