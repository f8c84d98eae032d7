"""`du` and `prune`: BuildKit's policies and order."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildengine.builder import PrunePolicy, UsageInfo
from buildengine.digest import Digest
from cache import prune
from cache.layers import LayerBlob, RemoteBlob
from cache.opened import Cache, open_cache
from cache.usage import disk_usage

CHAIN = Digest.sha256(b"c")


@pytest.mark.parametrize(
    ("policy", "total", "free", "keep"),
    [
        (PrunePolicy(max_used_space=10), 100, 0, 10),
        (PrunePolicy(reserved_space=20), 100, 0, 20),
        (PrunePolicy(max_used_space=10, reserved_space=20), 100, 0, 20),
        (PrunePolicy(min_free_space=50), 100, 20, 70),
        (PrunePolicy(min_free_space=50), 100, 49, 99),
        (PrunePolicy(min_free_space=50), 100, 60, 100),
        (PrunePolicy(min_free_space=50, max_used_space=30), 100, 60, 30),
        (PrunePolicy(min_free_space=50, max_used_space=30), 100, 20, 30),
        (PrunePolicy(min_free_space=50, max_used_space=90), 100, 20, 70),
        (PrunePolicy(min_free_space=500, reserved_space=5), 100, 20, 5),
    ],
)
def test_how_much_may_stay(policy: PrunePolicy, total: int, free: int, keep: int) -> None:
    assert prune.keep_bytes(total, free, policy) == keep


@pytest.mark.parametrize(
    ("policy", "over"),
    [
        (PrunePolicy(), True),
        (PrunePolicy(max_used_space=9), True),
        (PrunePolicy(max_used_space=10), False),
        (PrunePolicy(max_used_space=11), False),
        (PrunePolicy(reserved_space=9), True),
        (PrunePolicy(min_free_space=8), True),
        (PrunePolicy(min_free_space=7), False),
    ],
)
def test_there_may_be_something_to_do(policy: PrunePolicy, over: bool) -> None:
    """What images share is not counted: no policy with a limit can free it."""
    infos = [UsageInfo(id="a", size=4), UsageInfo(id="b", size=6), UsageInfo(id="c", size=100, shared=True)]
    assert prune.is_over(infos, policy, free=7) is over


@given(st.lists(st.tuples(st.floats(1, 9), st.integers(0, 5)), min_size=2, max_size=8))
def test_who_is_better_in_both_goes_last(uses: list[tuple[float, int]]) -> None:
    infos = [UsageInfo(id=str(n), last_used=last, usage_count=count) for n, (last, count) in enumerate(uses)]
    order = prune.by_use(infos)
    for earlier, later in itertools.pairwise(order):
        assert not ((earlier.last_used or 0) > (later.last_used or 0) and earlier.usage_count > later.usage_count)


def test_who_goes_first() -> None:
    """Each place in last use and in number of uses counts the same; what is left is decided by age, then by name."""
    uses = {
        "a": (None, 5, 1),
        "b": (3, 5, 1),
        "c": (2, 5, 1),
        "d": (2, 0, 1),
        "e": (3, 0, 1),
        "f": (2, 5, 0),
        "B": (3, 5, 1),
    }
    infos = [
        UsageInfo(id=id, last_used=last, usage_count=count, created=created)
        for id, (last, count, created) in uses.items()
    ]
    assert "".join(info.id for info in prune.by_use(infos)) == "daefcBb"


async def layer(cache: Cache, *stack: str, size: int = 100, kind: str = "regular", used: int = 0) -> str:
    new = await cache.layers.create(stack, kind=kind, description=f"layer of {size}")
    await new.commit(size=size)
    for _ in range(used):
        cache.layers.hold((new.id,))
        cache.layers.release((new.id,))
    return new.id


async def base_layer(cache: Cache) -> str:
    """A layer that came from a registry."""
    remote = RemoteBlob(digest=cache.store.put(b"base").digest, size=4, media_type="x")
    base = await cache.layers.add_remote(parent=(), diff_id=Digest.sha256(b"d"), chain_id=CHAIN, remote=remote)
    filling = await cache.layers.fill(base)
    assert filling is not None
    await filling.commit()
    return base


async def digested(cache: Cache, id: str, directory: Path) -> None:
    """Find out the content digest of a layer with a large file in it."""
    (directory / "file").write_bytes(bytes(100_000))
    fd = os.open(directory, os.O_RDONLY)
    await cache.contenthash.digest((id,), fd)
    os.close(fd)


async def pruned(cache: Cache, policy: PrunePolicy) -> list[str]:
    gone: list[str] = []
    await prune.prune(cache, policy, lambda info: gone.append(info.id))
    assert not set(gone) & set(os.listdir(cache.root / "layers"))
    return gone


async def test_sizes(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        new = await cache.layers.create(())
        (new.directory / "a").write_bytes(bytes(100_000))
        os.link(new.directory / "a", new.directory / "b")
        assert disk_usage(cache)[0].size == 0
        await new.commit()
        blob = cache.store.put(bytes(1000))
        await cache.layers.add_blob(
            new.id, LayerBlob(compression="gzip", digest=blob.digest, size=1000, media_type="x")
        )
        (info,) = disk_usage(cache)
        assert 101_000 <= info.size < 130_000
        assert cache.layers.get(new.id).size is not None


async def test_a_layer_goes_before_what_it_was_made_on(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        a = await layer(cache)
        b = await layer(cache, a)
        c = await layer(cache, a)
        cache.holds.expire()
        cache.layers.hold((c,))
        assert {info.id for info in disk_usage(cache, ["inuse"])} == {a, c}
        assert await pruned(cache, PrunePolicy()) == [b]
        cache.layers.release((c,))
        assert await pruned(cache, PrunePolicy()) == [c, a]


async def test_filters_and_kinds_are_spared(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        regular, internal = await layer(cache), await layer(cache, kind="internal")
        local = await layer(cache, kind="source.local")
        assert await pruned(cache, PrunePolicy(filters=("type==source.local", "type==internal"))) == [local]
        assert await pruned(cache, PrunePolicy()) == [regular]
        assert await pruned(cache, PrunePolicy(keep_duration=60, all=True)) == []
        assert await pruned(cache, PrunePolicy(all=True)) == [internal]


async def test_what_is_held_or_in_the_making_is_not_deleted(tmp_path: Path) -> None:
    """The last look before a layer goes, inside the transaction."""
    async with open_cache(tmp_path) as cache:

        def delete(id: str) -> bool:
            return cache.db.write_nowait(lambda c: prune.delete_layer(c, id))

        held, active = await layer(cache), await cache.layers.create(())
        cache.holds.expire()
        cache.layers.hold((held,))
        assert not delete(held)
        assert not delete(active.id)
        await active.discard()
        cache.layers.release((held,))
        top = await layer(cache, held)
        cache.holds.expire()
        assert not delete(held)
        assert delete(top)
        assert delete(held)


async def test_what_an_image_has_goes_with_everything_only(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        base = await base_layer(cache)
        await cache.images.add(cache.store.put(b"manifest").digest, names=["app"], blobs=[], chains=[CHAIN])
        top = await layer(cache, base)
        assert await pruned(cache, PrunePolicy(max_used_space=1)) == [top]
        assert await pruned(cache, PrunePolicy()) == []
        assert await pruned(cache, PrunePolicy(all=True)) == [base]


@pytest.mark.parametrize(
    "policy",
    [
        PrunePolicy(),
        PrunePolicy(all=True, filters=("type==internal",)),
        PrunePolicy(all=True, keep_duration=60),
        PrunePolicy(all=True, max_used_space=1 << 60),
        PrunePolicy(all=True, reserved_space=1 << 60),
        PrunePolicy(all=True, min_free_space=1),
    ],
)
async def test_what_servers_answered_and_directories_held_is_forgotten_with_everything(
    tmp_path: Path, policy: PrunePolicy
) -> None:
    def indexes(cache: Cache) -> list[tuple[str]]:
        return cache.db.read(lambda c: c.execute("SELECT key FROM local_indexes").fetchall())

    answer = tmp_path / "store/http/answer"
    (tmp_path / "directory/sub").mkdir(parents=True)
    os.utime(tmp_path / "directory", (1, 1))
    os.utime(tmp_path / "directory/sub", (1, 1))
    async with open_cache(tmp_path / "store") as cache:
        answer.parent.mkdir()
        answer.touch()
        await cache.localindex.save(await cache.localindex.scan(tmp_path / "directory"))
        assert len(indexes(cache)) == 1
        await pruned(cache, policy)
        await prune.collect(cache)
        assert (answer.exists(), len(indexes(cache))) == (True, 1)
        await pruned(cache, PrunePolicy(all=True))
        assert (answer.exists(), len(indexes(cache))) == (False, 0)


async def test_what_nobody_refers_to_is_collected_without_a_policy(tmp_path: Path) -> None:
    """As after an image was removed: not only blobs of those who died; and what was found out of a layer too late."""

    def digests(cache: Cache) -> tuple[int, int]:
        query = "SELECT (SELECT count(*) FROM content_digests), (SELECT count(*) FROM file_digests)"
        return cache.db.read(lambda c: c.execute(query).fetchone())

    async with open_cache(tmp_path) as cache:
        cache.store.put(b"1234")
        await digested(cache, "gone", tmp_path / "ingest")
        assert digests(cache) == (1, 1)
        assert await prune.collect(cache) == 4
        assert list(cache.store.list()) == []
        assert digests(cache) == (0, 0)


async def test_how_many_went(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        assert await prune.shrink(cache, PrunePolicy(), lambda _: None) == 0
        a = await layer(cache)
        await layer(cache, a)
        await layer(cache)
        assert await prune.shrink(cache, PrunePolicy(max_used_space=250), lambda _: None) == 1
        assert await prune.shrink(cache, PrunePolicy(), lambda _: None) == 2


async def test_what_was_used_lately_is_kept_however_old_it_is(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        unused, _used = await layer(cache), await layer(cache, used=1)
        cache.db.write_nowait(lambda c: c.execute("UPDATE layers SET created = 1").rowcount)
        (tmp_path / "http").mkdir()
        (tmp_path / "http" / "answer").touch()
        assert await pruned(cache, PrunePolicy(all=True, keep_duration=60)) == [unused]
        assert os.listdir(tmp_path / "http") == ["answer"]  # goes with everything only


async def test_with_a_limit_the_least_used_go_until_it_is_met(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        once, never, often = await layer(cache, used=1), await layer(cache), await layer(cache, used=3)
        assert await pruned(cache, PrunePolicy(max_used_space=1000)) == []
        assert await pruned(cache, PrunePolicy(max_used_space=250)) == [never]
        assert await pruned(cache, PrunePolicy(max_used_space=150, reserved_space=1000)) == []
        assert await pruned(cache, PrunePolicy(reserved_space=200)) == []
        assert await pruned(cache, PrunePolicy(max_used_space=150)) == [once]
        assert await pruned(cache, PrunePolicy(min_free_space=1)) == []
        assert await pruned(cache, PrunePolicy(min_free_space=1 << 60)) == [often]


async def test_nothing_is_left_right_after_a_build(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        with cache.activity():
            base = await base_layer(cache)
            top = await layer(cache, base)
            cache.layers.hold((base, top))
            key = cache.records.add_key(Digest.sha256(b"op"), 0, [Keys()])
            await cache.records.save(key, {"stack": [base, top]})
            async with cache.cachemounts.acquire("id"):
                pass
            cache.store.put(b"a manifest that nobody keeps")
            await cache.layers.prepare((base, top))
            await digested(cache, top, tmp_path / "layers" / top / "fs")
            cache.layers.release((base, top))
        assert len(await pruned(cache, PrunePolicy(all=True))) == 3
        assert disk_usage(cache) == []
        assert list(cache.store.list()) == []
        tables = (
            "layers",
            "records",
            "record_layers",
            "links",
            "blobs",
            "holds",
            "cachemounts",
            "content_digests",
            "file_digests",
            "trees",
        )
        for table in tables:
            assert cache.db.read(lambda c, t=table: c.execute(f"SELECT count(*) FROM {t}").fetchone()) == (0,), table
    for folder in ("layers", "cachemounts", "ingest", "blobs/sha256", "leases", "locks"):
        assert os.listdir(tmp_path / folder) == [], folder


class Keys:
    selector = ""
    keys = ("root:x",)


async def test_the_copying_snapshotters_views_are_dropped_when_unused(tmp_path: Path) -> None:
    async with open_cache(tmp_path, snapshotter="copy") as cache:
        a = await layer(cache)
        b = await layer(cache, a)
        cache.layers.hold((a, b))
        view = cache.layers.tree((a, b)).lowers[0]
        await pruned(cache, PrunePolicy())
        assert os.path.isdir(view)
        cache.layers.release((b,))
        await prune.collect(cache)
        assert not os.path.isdir(view)
        assert os.path.isdir(cache.layers.tree((a, b)).lowers[0])


async def test_git_repositories_are_told_and_pruned(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        (tmp_path / "git" / "abc").mkdir(parents=True)
        (tmp_path / "git" / "abc" / "HEAD").write_text("x")
        (tmp_path / "git" / "abc.1234.new").mkdir()
        (tmp_path / "http").mkdir()
        (tmp_path / "http" / "answer").touch()
        async with cache.locks.exclusive("git abc"):
            (info,) = disk_usage(cache, ["type==source.git.checkout"])
            assert (info.id, info.in_use, info.mutable) == ("git-abc", True, True)
            assert await pruned(cache, PrunePolicy(all=True)) == []
        assert await pruned(cache, PrunePolicy(all=True)) == ["git-abc"]
        assert os.listdir(tmp_path / "git") == ["abc.1234.new"]
        assert os.listdir(tmp_path / "http") == []
