"""What builds were made of: how much of it is kept, and for how long."""

from __future__ import annotations

from pathlib import Path

import pytest

from buildengine.builder import PrunePolicy
from cache import explained
from cache.opened import Cache, open_cache
from cache.prune import prune


async def save(cache: Cache, subject: str, *names: str, data: bytes = b"build", size: int = 4) -> None:
    await cache.explained.save(subject, data, dict.fromkeys(names, b"x" * size), names)


async def test_nothing_is_kept_before_something_was(tmp_path: Path) -> None:
    async with open_cache(tmp_path / "root") as cache:
        assert cache.explained.builds("a") == ()
        assert cache.explained.latest(10) == ()
        assert cache.explained.files("f") is None
        assert not cache.explained.has_files("f")


async def test_the_newest_of_each_subject_stay_with_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explained, "PER_SUBJECT", 4)
    async with open_cache(tmp_path / "root") as cache:
        for number in range(6):
            await save(cache, "a", f"only-{number}", "always", data=b"%d" % number)
        await save(cache, "b", data=b"other")
        assert [one.data for one in cache.explained.builds("a")] == [b"5", b"4", b"3", b"2"]
        assert [one.data for one in cache.explained.latest(2)] == [b"other", b"5"]
        assert [cache.explained.has_files(f"only-{n}") for n in range(6)] == [False, False, True, True, True, True]
        assert cache.explained.files("always") == b"xxxx"


async def test_a_bound_on_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explained, "MOST_BYTES", 1000)
    async with open_cache(tmp_path / "root") as cache:
        for subject in "abc":
            await save(cache, subject, subject, size=400)
        assert [bool(cache.explained.builds(subject)) for subject in "abc"] == [False, True, True]
        assert not cache.explained.has_files("a")
        await save(cache, "d", "d", size=4000)
        assert cache.explained.latest(10) == ()


async def test_a_bound_on_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explained, "MOST_BUILDS", 3)
    async with open_cache(tmp_path / "root") as cache:
        for subject in "abcde":
            await save(cache, subject)
        assert [bool(cache.explained.builds(subject)) for subject in "abcde"] == [False, False, True, True, True]


async def test_pruning_everything_takes_the_lists_alone(tmp_path: Path) -> None:
    async with open_cache(tmp_path / "root") as cache:
        await save(cache, "a", "f")
        await prune(cache, PrunePolicy(), lambda info: None)
        assert cache.explained.has_files("f")
        await prune(cache, PrunePolicy(all=True), lambda info: None)
        assert not cache.explained.has_files("f")
        assert len(cache.explained.builds("a")) == 1
