"""Cache mounts: found again, shared by the rules, and never where a name could lead."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from buildengine.builder import PrunePolicy
from buildengine.errors import InternalError
from cache import prune
from cache.opened import Cache, open_cache
from cache.usage import disk_usage
from tests.fakes import cache_trees as trees
from tests.fakes.cache_mounts import opened


def directories(root: Path) -> list[str]:
    return os.listdir(root / "cachemounts")


async def test_what_was_put_in_is_found_again(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        async with cache.cachemounts.acquire("id") as path:
            (path / "file").write_text("x")
            assert path.stat().st_mode & 0o7777 == 0o755
        async with cache.cachemounts.acquire("other") as other:
            assert other != path
    async with open_cache(tmp_path) as cache, cache.cachemounts.acquire("id", sharing="locked") as again:
        assert again == path
        assert (again / "file").read_text() == "x"


@pytest.mark.parametrize("id", ["../../escape", "/etc", "", "a/b", "x\0y", "\udcff", "é" * 300])
async def test_no_name_leads_out(tmp_path: Path, id: str) -> None:
    async with open_cache(tmp_path / "root") as cache, cache.cachemounts.acquire(id) as path:
        assert path.parent == tmp_path / "root" / "cachemounts"
        assert path.is_dir()
    assert os.listdir(tmp_path) == ["root"]


async def test_shared_is_one_directory_at_once(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as one, open_cache(tmp_path) as two:
        mounts = one.cachemounts
        async with mounts.acquire("id") as a, mounts.acquire("id") as b, two.cachemounts.acquire("id") as c:
            assert a == b == c
        assert len(directories(tmp_path)) == 1


async def test_private_is_a_directory_each(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as one, open_cache(tmp_path) as two:
        mounts = one.cachemounts, two.cachemounts
        async with (
            mounts[0].acquire("id", sharing="private") as a,
            mounts[1].acquire("id", sharing="private") as b,
            mounts[0].acquire("id") as c,
        ):
            assert len({a, b, c}) == 3
        async with two.cachemounts.acquire("id", sharing="private") as again:
            assert again == a
        assert len(directories(tmp_path)) == 3


async def test_locked_waits_for_the_others(tmp_path: Path) -> None:
    order: list[str] = []
    async with open_cache(tmp_path) as one, open_cache(tmp_path) as two, trio.open_nursery() as nursery:

        async def use(cache: Cache, name: str) -> None:
            async with cache.cachemounts.acquire("id", sharing="locked") as path:
                order.append(f"{name} {path.name} in")
                await trio.sleep(0.01)
                order.append(f"{name} {path.name} out")

        for name, cache in (("a", one), ("b", one), ("c", two)):
            nursery.start_soon(use, cache, name)
    assert [line[:-3] for line in order[::2]] == [line[:-4] for line in order[1::2]]
    assert len(directories(tmp_path)) == 1


async def test_one_owner_is_not_in_its_own_way(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        mounts = cache.cachemounts
        async with mounts.acquire("id", sharing="locked", owner="step") as a:
            async with mounts.acquire("id", sharing="locked", owner="step") as b:
                assert a == b
            with trio.move_on_after(0.01) as scope:
                await AsyncExitStack().enter_async_context(mounts.acquire("id", sharing="locked", owner="another"))
            assert scope.cancelled_caught
        async with mounts.acquire("id", sharing="locked"):
            pass


async def test_a_new_one_is_a_copy_of_its_base(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        new = await cache.layers.create(())
        with opened(new.tree) as root:
            trees.write(root, {"d": {"f": b"x"}, "l": "d"})
            os.fchown(root, 5, 6)
            os.fchmod(root, 0o700)
        base = (await new.commit(),)
        asked: list[Sequence[str]] = []

        @contextmanager
        def open_tree(stack: Sequence[str]) -> Iterator[int]:
            asked.append(stack)
            with opened(cache.layers.tree(stack)) as fd:
                yield fd

        async with cache.cachemounts.acquire("id", base=base, open_tree=open_tree) as path:
            assert (path / "d" / "f").read_bytes() == b"x"
            assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o7777) == (5, 6, 0o700)
            (path / "d" / "f").write_bytes(b"changed")
        assert (new.directory / "d" / "f").read_bytes() == b"x"
        async with cache.cachemounts.acquire("id", base=base, open_tree=open_tree) as again:
            assert again == path
        assert asked == [base]
        async with cache.cachemounts.acquire("id") as plain:
            assert plain != path


async def test_a_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:

        @contextmanager
        def broken(stack: Sequence[str]) -> Iterator[int]:
            raise OSError("no")
            yield 0

        with pytest.raises(OSError, match="no"):
            await AsyncExitStack().enter_async_context(cache.cachemounts.acquire("id", base=("b",), open_tree=broken))
        with pytest.raises(InternalError):
            await AsyncExitStack().enter_async_context(cache.cachemounts.acquire("id", base=("b",)))
        with pytest.raises(InternalError):
            await AsyncExitStack().enter_async_context(cache.cachemounts.acquire("id", sharing="public"))
        assert directories(tmp_path) == []
        assert disk_usage(cache) == []


async def test_a_fresh_start(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        mounts = cache.cachemounts
        async with mounts.acquire("id") as old:
            await mounts.forget(["id"])
            async with mounts.acquire("id") as fresh:
                assert fresh != old
            async with mounts.acquire("id") as later:
                assert later == fresh
            assert len(directories(tmp_path)) == 2
            await mounts.forget(["id", "unknown"])
            assert directories(tmp_path) == [old.name]  # it is in use: the next prune takes it
        async with mounts.acquire("id") as newest:
            assert newest not in (old, fresh)


async def test_usage_and_pruning(tmp_path: Path) -> None:
    gone: list[str] = []
    async with open_cache(tmp_path) as one, open_cache(tmp_path) as two:
        async with one.cachemounts.acquire("id", description="my mount") as path:
            (path / "file").write_bytes(bytes(10_000))
            (info,) = disk_usage(two)
            assert (info.kind, info.mutable, info.in_use) == ("exec.cachemount", True, True)
            assert info.description == "my mount"
            assert info.size >= 10_000
            await prune.prune(two, PrunePolicy(all=True), lambda info: gone.append(info.id))
            assert gone == []
        (info,) = disk_usage(two, ["type==exec.cachemount", "type==internal"])
        assert (info.in_use, info.usage_count) == (False, 1)
        await prune.prune(two, PrunePolicy(filters=("type==exec.cachemount",)), lambda info: gone.append(info.id))
        assert gone == [path.name]
        assert directories(tmp_path) == []
        async with one.cachemounts.acquire("id") as again:
            assert again != path
