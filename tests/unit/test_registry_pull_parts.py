"""Big blobs: fetched in parts by several connections, resumed, and never anything but what their digest says."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from buildengine.digest import Digest
from buildengine.errors import RegistryError, SourceError, StoreError
from cache.store import BlobWriter, ContentStore
from tests.fakes.http_server import Reply, Request, Server, serve
from tests.fakes.registry_server import client, ranged
from worker.oci.types import Descriptor
from worker.registry import download

BLOB = random.Random(1).randbytes(900_000)
PART = 100_000
WANTED = Descriptor(media_type="x", digest=Digest.sha256(BLOB), size=len(BLOB))
FIRST = f"bytes=0-{PART - 1}"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PART", PART)
    monkeypatch.setattr(download, "DIVIDED", 2 * PART)
    monkeypatch.setattr(download, "_STEP", 30_000)
    monkeypatch.setattr(download, "_ABSORBED", 70_000)


async def fetch(server: Server, directory: Path, **settings: object) -> list[int]:
    """Fetch the blob into a content store, which verifies it once more; the progress that was told."""
    told: list[int] = []
    store = ContentStore(directory)
    async with client(**settings) as registry:
        with store.writer(expected=WANTED.digest, size=WANTED.size) as writer:
            await registry.fetch_blob(
                WANTED, (f"{server.host}/app",), writer, on_progress=lambda _digest, so_far, _size: told.append(so_far)
            )
            writer.commit()
    assert store.path(WANTED.digest).read_bytes() == BLOB
    return told


def asked(server: Server) -> list[str]:
    return [request.headers.get("range", "") for request in server.requests]


def serving(*odd: Callable[[Request], Reply | None]) -> Callable[[Request], Reply]:
    """A handler that lets the first of `odd` answer that wants to, else sends what was asked for."""

    def handle(request: Request) -> Reply:
        return next((reply for rule in odd if (reply := rule(request)) is not None), None) or ranged(request, BLOB)

    return handle


def once(range_: str, reply: Callable[[Request], Reply]) -> Callable[[Request], Reply | None]:
    """Answers the first request for this range."""
    left = iter([reply])

    def rule(request: Request) -> Reply | None:
        answer = next(left, None) if request.headers.get("range", "") == range_ else None
        return answer(request) if answer else None

    return rule


async def test_each_part_is_asked_for_once_and_by_several_connections(tmp_path: Path) -> None:
    running = most = 0

    async def handle(request: Request) -> Reply:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(50):
            await trio.lowlevel.checkpoint()
        running -= 1
        return ranged(request, BLOB)

    async with serve(handle) as server:
        told = await fetch(server, tmp_path)
    starts = range(0, len(BLOB) - PART, PART)
    assert sorted(asked(server)) == sorted(
        [f"bytes={s}-{s + PART - 1}" for s in starts] + [f"bytes={len(BLOB) - PART}-"]
    )
    assert 1 < most <= 4
    assert told == sorted(told)
    assert told[-1] == len(BLOB)


async def test_without_a_connection_to_spare_the_parts_come_one_after_the_other(tmp_path: Path) -> None:
    async with serve(serving()) as server:
        await fetch(server, tmp_path, max_downloads=1)
    starts = [int(text[6:].partition("-")[0]) for text in asked(server)]
    assert starts == list(range(0, len(BLOB), PART))


async def test_who_waits_comes_before_who_helps(tmp_path: Path) -> None:
    """A helper gives its connection to a blob that waits for one, as soon as its part is there."""
    other = Descriptor(media_type="x", digest=Digest.sha256(b"small"), size=5)
    queued, served = trio.Event(), trio.Event()
    begun = 0

    async def handle(request: Request) -> Reply:
        nonlocal begun
        if str(other.digest) in request.path:
            served.set()
            return Reply(body=b"small")
        begun += 1
        if begun > 1:  # the first answer calls the helper
            await (queued if begun <= 3 else served).wait()
        return ranged(request, BLOB)

    store = ContentStore(tmp_path)

    async def get(descriptor: Descriptor) -> None:
        with store.writer(expected=descriptor.digest, size=descriptor.size) as writer:
            await registry.fetch_blob(descriptor, (f"{server.host}/app",), writer)
            writer.commit()

    async with serve(handle) as server, client(max_downloads=2) as registry:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(get, WANTED)
                while begun < 3:
                    await trio.lowlevel.checkpoint()
                nursery.start_soon(get, other)
                await wait_all_tasks_blocked()
                queued.set()
    assert store.info(WANTED.digest) is not None


async def test_a_server_that_ignores_ranges_is_read_once_from_the_start(tmp_path: Path) -> None:
    async with serve(lambda request: Reply(body=BLOB)) as server:
        await fetch(server, tmp_path)
    assert asked(server) == [FIRST]


@pytest.mark.parametrize(
    "odd",
    [
        lambda request: Reply(status=416),
        lambda request: Reply(status=206, body=BLOB[5:10], headers={"content-range": f"bytes 5-9/{len(BLOB)}"}),
        lambda request: Reply(status=206, body=BLOB[:10], headers={"content-range": "nonsense"}),
        lambda request: Reply(status=206, body=BLOB, headers={"content-range": f"bytes 0-{len(BLOB) - 1}/*"}),
    ],
)
async def test_who_misunderstands_ranges_is_asked_for_the_whole(
    tmp_path: Path, odd: Callable[[Request], Reply]
) -> None:
    async with serve(lambda request: odd(request) if "range" in request.headers else Reply(body=BLOB)) as server:
        await fetch(server, tmp_path)
    assert asked(server) == [FIRST, ""]


async def test_a_shorter_range_than_asked_for_is_taken_for_what_it_is(tmp_path: Path) -> None:
    def short(request: Request) -> Reply:
        reply = ranged(request, BLOB)
        start = int(request.headers["range"][6:].partition("-")[0])
        body = reply.body[:60_000]
        return Reply(
            status=206, body=body, headers={"content-range": f"bytes {start}-{start + len(body) - 1}/{len(BLOB)}"}
        )

    async with serve(short) as server:
        await fetch(server, tmp_path)
    assert len(server.requests) == 2 * len(BLOB) // PART


async def test_a_part_that_breaks_off_is_resumed_where_it_broke(tmp_path: Path) -> None:
    async with serve(serving(once(FIRST, lambda request: cut(request, 40_000)))) as server:
        await fetch(server, tmp_path)
    assert f"bytes=40000-{PART - 1}" in asked(server)
    assert len(server.requests) == len(BLOB) // PART + 1


async def test_what_a_helper_fails_to_get_is_left_to_the_first(tmp_path: Path) -> None:
    """Whoever asks for the second part first meets errors that would end a download."""
    second = f"bytes={PART}-{2 * PART - 1}"
    for reply in (Reply(status=403), Reply(status=404), Reply(status=503), Reply(body=b"x", length=12)):
        async with serve(serving(once(second, lambda request, reply=reply: reply))) as server:
            try:
                await fetch(server, tmp_path / str(reply.status))
            except RegistryError:
                assert reply.status in (403, 404, 200)  # the first connection was the one that asked
            else:
                assert asked(server).count(second) == 2


async def test_a_lie_about_the_size_ends_it(tmp_path: Path) -> None:
    def lie(request: Request) -> Reply:
        return Reply(status=206, body=BLOB[:PART], headers={"content-range": f"bytes 0-{PART - 1}/{10**15}"})

    async with serve(lie) as server:
        with pytest.raises(RegistryError, match=f"is said to have {10**15} bytes"):
            await fetch(server, tmp_path)
    assert len(server.requests) == 4
    assert list((tmp_path / "ingest").iterdir()) == []


async def test_a_size_beyond_belief_takes_no_memory(tmp_path: Path) -> None:
    absurd = Descriptor(media_type="x", digest=WANTED.digest, size=1 << 49)
    with ContentStore(tmp_path).writer(expected=absurd.digest, size=absurd.size) as writer:
        async with serve(serving()) as server, client() as registry:
            with trio.fail_after(20), pytest.raises(RegistryError, match=f"it should have {1 << 49}"):
                await registry.fetch_blob(absurd, (f"{server.host}/app",), writer)


async def test_other_bytes_in_any_part_are_noticed(tmp_path: Path) -> None:
    last = f"bytes={len(BLOB) - PART}-"

    def altered(request: Request) -> Reply:
        reply = ranged(request, BLOB)
        return Reply(status=206, body=reply.body[:-1] + b"\0", headers=reply.headers)

    async with serve(serving(once(last, altered))) as server:
        with pytest.raises(RegistryError, match="sent other bytes than"):
            await fetch(server, tmp_path)


async def test_a_full_disk_is_one_error_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: BlobWriter, offset: int, data: bytes) -> None:
        raise StoreError("no space left")

    monkeypatch.setattr(BlobWriter, "write_at", full)
    monkeypatch.setattr(BlobWriter, "write", lambda self, data: full(self, 0, data))
    async with serve(serving()) as server:
        with pytest.raises(StoreError, match="no space left"):
            await fetch(server, tmp_path)
    assert list((tmp_path / "ingest").iterdir()) == []


def cut(request: Request, size: int) -> Reply:
    reply = ranged(request, BLOB)
    return Reply(status=reply.status, headers=reply.headers, body=reply.body, cut=size)


def _moods(seed: int) -> Iterator[Callable[[Request], Reply]]:
    dice = random.Random(seed)
    while True:
        mood = dice.choice(["well"] * 6 + ["cut", "whole", "503", "416", "odd", "nothing"])
        size = dice.randrange(PART)
        match mood:
            case "cut":
                yield lambda request, size=size: cut(request, size)
            case "nothing":
                yield lambda request: cut(request, 0)
            case "whole":
                yield lambda request: Reply(body=BLOB)
            case "503" | "416":
                yield lambda request, mood=mood: Reply(status=int(mood))
            case "odd":
                yield lambda request: Reply(status=206, body=b"?", headers={"content-range": "bytes 1-1/2"})
            case _:
                yield lambda request: ranged(request, BLOB)


@pytest.mark.parametrize("seed", range(40))
async def test_a_server_of_many_moods_gives_the_blob_or_an_error(tmp_path: Path, seed: int) -> None:
    moods = _moods(seed)
    async with serve(lambda request: next(moods)(request)) as server:
        try:
            told = await fetch(server, tmp_path)
        except SourceError:
            assert list((tmp_path / "ingest").iterdir()) == []
        else:
            assert told[-1] == len(BLOB)
    assert all(re.fullmatch(r"(bytes=\d+-\d*)?", text) for text in asked(server))
