"""What repositories hold, in the cache: whole or not at all, kept from pruning, and sound after a power cut."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from buildengine.builder import PrunePolicy
from buildengine.digest import Digest
from cache import prune
from cache.opened import Cache, open_cache
from cache.served import Referral, ServedManifest
from cache.verify import verify


async def blob(cache: Cache, text: str, *repositories: str) -> Digest:
    digest = cache.store.put(text.encode()).digest
    for repository in repositories:
        assert await cache.served.add_blob(repository, digest)
    return digest


async def manifest(
    cache: Cache,
    text: str,
    *needs: Referral,
    repository: str = "app",
    tags: Iterable[str] = (),
    subject: Digest | None = None,
    artifact_type: str = "",
) -> Digest:
    info = cache.store.put(text.encode())
    made = ServedManifest(
        digest=info.digest,
        size=info.size,
        media_type="x",
        subject=subject,
        artifact_type=artifact_type,
        descriptor=text if subject else "",
    )
    assert await cache.served.add_manifest(repository, made, needs=needs, tags=tuple(tags)) == ()
    return info.digest


async def collected(cache: Cache) -> int:
    with cache.activity():
        pass  # the end of an activity lets go of what it pinned
    return await prune.collect(cache)


async def test_a_manifest_comes_whole_or_not_at_all(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        here = Referral(digest=await blob(cache, "here", "app"), size=4, is_manifest=False)
        elsewhere = Referral(digest=await blob(cache, "elsewhere", "other"))
        other_size = Referral(digest=here.digest, size=5)
        no_manifest = Referral(digest=here.digest, is_manifest=True)
        info = cache.store.put(b"manifest")
        made = ServedManifest(digest=info.digest, size=info.size, media_type="x")
        needs = (here, elsewhere, other_size, no_manifest)
        missing = await cache.served.add_manifest("app", made, needs=needs, tags=("latest",))
        assert missing == (elsewhere, other_size, no_manifest)
        assert cache.served.manifest("app", info.digest) is None
        assert cache.served.tagged("app", "latest") is None
        assert await cache.served.add_manifest("app", made, needs=(here,), tags=("latest",)) == ()
        assert cache.served.manifest("app", info.digest) == made
        assert cache.served.tagged("app", "latest") == info.digest
        assert cache.served.manifest("other", info.digest) is None


async def test_a_blob_lives_as_long_as_one_repository_has_it(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        digest = await blob(cache, "shared", "one", "two")
        assert not await cache.served.add_blob("three", Digest.sha256(b"nowhere"))
        assert not await cache.served.add_blob("three", digest, source="four")
        assert await cache.served.add_blob("three", digest, source="two")
        for repository in ("one", "two", "three"):
            assert await collected(cache) == 0
            assert cache.served.blob(repository, digest) == 6
            assert await cache.served.remove_blob(repository, digest)
            assert not await cache.served.remove_blob(repository, digest)
            assert cache.served.blob(repository, digest) is None
        assert cache.served.holder(digest) is None
        assert await collected(cache) == 6
        assert not cache.store.path(digest).exists()


async def test_no_prune_takes_what_a_repository_has(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        layer = await blob(cache, "layer", "app")
        digest = await manifest(cache, "manifest", Referral(digest=layer), tags=("latest",))
    async with open_cache(tmp_path) as cache:
        await prune.prune(cache, PrunePolicy(all=True), lambda info: None)
        assert cache.store.read(layer) == b"layer"
        assert cache.store.read(digest) == b"manifest"
        assert cache.served.tagged("app", "latest") == digest
        assert verify(cache) == []


async def test_a_manifest_leaves_with_its_tags(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        first = await manifest(cache, "one", tags=("a", "b", "c"))
        second = await manifest(cache, "two", tags=("b",))
        assert cache.served.tags("app", most=10) == ("a", "b", "c")
        assert await cache.served.remove_manifest("app", first)
        assert cache.served.tags("app", most=10) == ("b",)
        assert cache.served.tagged("app", "b") == second
        assert await cache.served.remove_tag("app", "b")
        assert not await cache.served.remove_tag("app", "b")
        assert cache.served.exists("app")
        assert await cache.served.remove_manifest("app", second)
        assert not cache.served.exists("app")
        assert await collected(cache) == 6


async def test_pages_are_in_the_order_of_bytes(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        for repository in ("b", "a/b", "a", "a-b"):
            await blob(cache, "x", repository)
        await manifest(cache, "m", repository="c", tags=("b", "B", "a", "_", "1"))
        assert cache.served.names(most=10) == ("a", "a-b", "a/b", "b", "c")
        assert cache.served.names(after="a-b", most=2) == ("a/b", "b")
        assert cache.served.tags("c", most=3) == ("1", "B", "_")
        assert cache.served.tags("c", after="_", most=3) == ("a", "b")


async def test_referrers_by_subject_type_and_page(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        subject = Digest.sha256(b"subject")
        made = [
            await manifest(cache, f"r{number}", subject=subject, artifact_type=f"t{number % 2}") for number in range(6)
        ]
        await manifest(cache, "other subject", subject=Digest.sha256(b"x"))
        await manifest(cache, "other repository", subject=subject, repository="other")
        found = cache.served.referrers("app", subject, most=10)
        assert [one.digest for one in found] == sorted(made)
        assert {one.descriptor for one in found} == {f"r{number}" for number in range(6)}
        odd = cache.served.referrers("app", subject, artifact_type="t1", most=10)
        assert {one.descriptor for one in odd} == {"r1", "r3", "r5"}
        page = cache.served.referrers("app", subject, after=found[1].digest, most=2)
        assert page == found[2:4]


async def test_after_a_power_cut_nothing_half_is_served(tmp_path: Path) -> None:
    """A manifest goes when a blob that it needs has gone, and so does the index that it is in."""
    with suppress(KeyboardInterrupt):
        async with open_cache(tmp_path, boot="one") as cache:
            safe = await blob(cache, "safe", "app")
            kept = await manifest(cache, "kept", Referral(digest=safe), tags=("kept",))
            await cache.sync()
            torn = await blob(cache, "torn", "app")
            lost = await manifest(cache, "lost", Referral(digest=torn), Referral(digest=safe), tags=("lost", "latest"))
            await manifest(cache, "index", Referral(digest=lost), Referral(digest=kept), tags=("index",))
            raise KeyboardInterrupt  # ends without a flush
    (tmp_path / "blobs" / "sha256" / torn.hex).write_bytes(b"")
    async with open_cache(tmp_path, boot="two") as cache:
        assert cache.served.tags("app", most=10) == ("kept",)
        assert cache.served.manifest("app", kept) is not None
        assert cache.served.manifest("app", lost) is None
        assert cache.served.blob("app", safe) == 4
        assert cache.served.blob("app", torn) is None
        assert verify(cache) == []


async def test_verify_tells_what_a_repository_lacks(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as cache:
        digest = await blob(cache, "blob", "app")
        await manifest(cache, "manifest", tags=("latest",))
        cache.store.delete(digest)
        assert [damage.where for damage in verify(cache)] == ["served repository app"]
        await cache.db.write(lambda c: c.execute("DELETE FROM served_manifests").rowcount)
        assert len(verify(cache)) == 2
