"""One upload: resumed where it was cut off, in pieces where a body is too large, begun anew in the worst case."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from buildengine.digest import Digest
from buildengine.errors import RegistryError, SourceError, StoreError
from tests.fakes.http_server import Reply, Request
from tests.fakes.push_registry import MemoryBlob, PushRegistry, push_registry
from tests.fakes.registry_server import Logins
from worker.oci.types import Descriptor
from worker.registry.client import EndpointClient
from worker.registry.errors import RegistryRefused, deserves_retry, refusal
from worker.registry.hosts import RegistryConfig, endpoints
from worker.registry.patience import wait_before_retry
from worker.registry.transport import Unreachable, open_transport
from worker.registry.upload import BlobFile, BlobReader, BlobUpload

DELAYS = (0.0,) * 5
MIB = 1 << 20


@asynccontextmanager
async def client(host: str) -> AsyncIterator[EndpointClient]:
    async with open_transport() as transport:
        yield EndpointClient.of(endpoints(host, RegistryConfig())[-1], transport, Logins(), "pybuild")


async def send(fake: PushRegistry, data: bytes, reader: BlobReader | BlobFile | None = None) -> list[int]:
    """Upload `data`, which the registry has then; the progress that was told."""
    told: list[int] = []
    descriptor = Descriptor(media_type="x", digest=Digest.sha256(data), size=len(data))
    async with client(fake.host) as endpoint:
        upload = BlobUpload(
            endpoint, "app", descriptor, delays=DELAYS, on_progress=lambda digest, current, total: told.append(current)
        )
        await upload.send(reader or MemoryBlob(data))
    assert fake.held["app", str(descriptor.digest)] == data
    return told


def cut(fake: PushRegistry, *parts: float, method: str = "PUT") -> Callable[[Request], Reply | None]:
    """A rule: the first requests of `method` end after these parts of their bodies, as if the line had broken."""
    left = list(parts)

    def rule(request: Request) -> Reply | None:
        if request.method != method or "/uploads/" not in request.path or not left:
            return None
        number = request.path.rpartition("/")[2]
        fake.sessions[number] += request.body[: int(len(request.body) * left.pop(0))]
        return Reply(status=502)

    return rule


# --- what goes well -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2, 300_000])
async def test_one_body(size: int) -> None:
    async with push_registry() as fake:
        told = await send(fake, os.urandom(size))
        assert fake.lines() == ["POST app/blobs/uploads/", "PUT app/blobs/uploads/N"]
        begin, put = fake.server.requests
    assert (begin.headers["content-length"], put.headers["content-length"]) == ("0", str(size))
    assert told == sorted(told)
    assert (told or [0])[-1] == size


# --- what breaks off ----------------------------------------------------------------------------------------


async def test_the_rest_is_sent_after_a_cut() -> None:
    data = os.urandom(1_000_000)
    async with push_registry() as fake:
        fake.rules.append(cut(fake, 0.6))
        await send(fake, data)
        methods = [line.split()[0] for line in fake.lines()]
        (rest,) = (r for r in fake.server.requests if r.method == "PATCH")
    assert methods == ["POST", "PUT", "HEAD", "GET", "PATCH", "PUT"]
    assert (len(rest.body), rest.headers["content-range"]) == (400_000, "600000-999999")


async def test_an_open_file_is_sent_and_gone_on_with_after_a_cut(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "blob").write_bytes(data)
    with open(tmp_path / "blob", "rb") as file:
        async with push_registry() as fake:
            fake.rules.append(cut(fake, 0.6))
            told = await send(fake, data, BlobFile(file=file.fileno()))
            (rest,) = (r for r in fake.server.requests if r.method == "PATCH")
    assert rest.headers["content-range"] == "1800000-2999999"
    assert told == sorted(told)
    assert (told[-1], 3_000_000 in told[:-1]) == (3_000_000, True)


async def test_a_file_that_is_too_short_is_an_error_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"dat")
    with open(tmp_path / "blob", "rb") as file:
        async with push_registry() as fake:
            with pytest.raises(StoreError, match="shorter than it should be"):
                await send(fake, b"data", BlobFile(file=file.fileno()))


@pytest.mark.parametrize("size", [1, 2, 1_000_000])
async def test_cuts_before_the_first_and_after_the_last_byte(size: int) -> None:
    for parts in ((0.0,), (1.0,), (0.0, 0.5, 1.0)):
        async with push_registry() as fake:
            fake.rules.append(cut(fake, *parts))
            await send(fake, os.urandom(size))


async def test_patience_starts_anew_while_it_moves() -> None:
    async with push_registry() as fake:
        fake.rules += [cut(fake, 0.1), cut(fake, *(0.1,) * 12, method="PATCH")]
        await send(fake, os.urandom(1_000_000))


async def test_it_ends_when_nothing_moves() -> None:
    async with push_registry() as fake:
        fake.rules.append(cut(fake, *(0.0,) * 20))
        with pytest.raises(RegistryError, match="bad gateway"):
            await send(fake, b"data")
        assert fake.lines().count("PUT app/blobs/uploads/N") == len(DELAYS) + 1


async def test_an_answer_that_was_lost_costs_one_question() -> None:
    data = b"data"
    async with push_registry() as fake:

        def lose(request: Request) -> Reply | None:
            if request.method != "PUT":
                return None
            fake.rules.remove(lose)
            assert fake.handle(request).status == 201
            return Reply(status=504)

        fake.rules.append(lose)
        await send(fake, data)
        assert [line.split()[0] for line in fake.lines()] == ["POST", "PUT", "HEAD"]


async def test_a_session_that_is_gone_is_begun_anew() -> None:
    async with push_registry() as fake:

        def forget(request: Request) -> Reply | None:
            if request.method == "GET":
                fake.sessions.clear()
            return None

        fake.rules += [cut(fake, 0.5), forget]
        await send(fake, os.urandom(500_000))
        assert [line.split()[0] for line in fake.lines()] == ["POST", "PUT", "HEAD", "GET", "POST", "PATCH", "PUT"]


@pytest.mark.parametrize("claimed", ["0-99", "0-799999", "0-999998", "0-5000000", "nonsense", ""])
async def test_a_registry_that_lies_about_what_it_has(claimed: str) -> None:
    """It has 600,000 bytes. Whatever it says, the blob is right in the end."""
    async with push_registry() as fake:

        def lie(request: Request) -> Reply | None:
            return Reply(status=204, headers={"range": claimed}) if request.method == "GET" else None

        fake.rules += [cut(fake, 0.6), lie]
        await send(fake, os.urandom(1_000_000))


async def test_a_piece_of_which_a_part_was_taken() -> None:
    """PATCH answers with less than it was sent: the rest is sent again."""
    async with push_registry() as fake:

        def take_half(request: Request) -> Reply | None:
            if request.method != "PATCH":
                return None
            fake.rules.remove(take_half)
            number = request.path.rpartition("/")[2]
            fake.sessions[number] += request.body[: len(request.body) // 2]
            return fake._session("app", number, 202)

        fake.rules += [cut(fake, 0.5), take_half]
        await send(fake, os.urandom(400_000))
        assert fake.lines("PATCH") == 2 * ["PATCH app/blobs/uploads/N"]


# --- what is too large --------------------------------------------------------------------------------------


def at_most(limit: int) -> Callable[[Request], Reply | None]:
    return lambda request: Reply(status=413) if len(request.body) > limit else None


async def test_a_body_that_is_too_large_goes_in_pieces() -> None:
    data = os.urandom(5 * MIB + 7)
    async with push_registry(rules=[at_most(2 * MIB)]) as fake:
        await send(fake, data)
        sizes = [len(r.body) for r in fake.server.requests if r.method == "PATCH"]
    assert sizes[0] == len(data)  # 16 MiB a piece were tried
    assert sizes[-6:] == [MIB] * 5 + [7]


async def test_nothing_is_small_enough() -> None:
    async with push_registry(rules=[at_most(1000)]) as fake:
        with pytest.raises(RegistryError, match="too large") as caught:
            await send(fake, os.urandom(100_000))
    assert "raise its limit" in (caught.value.hint or "")


async def test_pieces_are_not_smaller_than_the_registry_wants() -> None:
    data = os.urandom(9 * MIB)
    async with push_registry(least=4 * MIB, rules=[at_most(5 * MIB)]) as fake:
        await send(fake, data)
        sizes = [len(r.body) for r in fake.server.requests if r.method == "PATCH"]
    assert sizes[-3:] == [4 * MIB, 4 * MIB, MIB]


async def test_a_registry_without_one_body_uploads() -> None:
    def in_pieces_only(request: Request) -> Reply | None:
        return Reply(status=405) if request.method == "PUT" and request.body else None

    async with push_registry(rules=[in_pieces_only]) as fake:
        await send(fake, b"data")
        methods = [line.split()[0] for line in fake.lines()]
    assert methods == ["POST", "PUT", "POST", "PATCH", "PUT"]


# --- what does not help -------------------------------------------------------------------------------------


async def test_a_damaged_source_is_refused_in_the_end() -> None:
    async with push_registry() as fake:
        with pytest.raises(RegistryError, match="DIGEST_INVALID"):
            await send(fake, b"data", MemoryBlob(b"date"))
        assert fake.held == {}
        assert len(fake.lines("POST")) < 10


async def test_a_source_that_fails_is_not_taken_for_the_registry() -> None:
    class Gone:
        opened = 0

        async def chunks(self, start: int, end: int) -> AsyncGenerator[bytes]:
            self.opened += 1
            yield b"da"
            raise Unreachable("the source is gone")

    async with push_registry() as fake:
        gone = Gone()
        with pytest.raises(SourceError, match="the source is gone"):
            await send(fake, b"data", gone)
        assert (gone.opened, len(fake.lines("POST"))) == (1, 1)  # it had its own attempts


async def test_an_upload_that_leads_nowhere() -> None:
    for headers in ({}, {"location": "ftp://x/y"}, {"location": "http://[/"}):
        reply = Reply(status=202, headers=headers)
        async with push_registry(rules=[lambda request, reply=reply: reply]) as fake:
            with pytest.raises(SourceError):
                await send(fake, b"data")


# --- waiting ------------------------------------------------------------------------------------------------


class Said:
    """A response."""

    def __init__(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.status, self.body = status, body
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.url = "http://r.io/v2/"

    async def read(self, limit: int) -> bytes:
        return self.body

    async def chunks(self) -> AsyncGenerator[bytes]:
        yield self.body

    async def fill(self, buffer: memoryview) -> int:
        raise AssertionError("a refusal is read whole")

    def take_ready(self, buffer: memoryview) -> int:
        raise AssertionError("a refusal is read whole")


async def refused(response: Said) -> RegistryRefused:
    return await refusal(response, host="r.io", subject="x")


async def test_how_long_a_registry_wants_us_to_wait() -> None:
    assert (await refused(Said(429, retry_after="7"))).retry_after == 7
    assert (await refused(Said(503, retry_after="100000"))).retry_after == 60
    assert (await refused(Said(429, retry_after="Wed, 21 Oct 2015 07:28:00 GMT"))).retry_after == 0
    assert (await refused(Said(429, retry_after="Wed, 21 Oct 2099 07:28:00 GMT"))).retry_after == 60
    for nonsense in ("soon", "-1", "1e3", "", "Wed, 99 Oct"):
        assert (await refused(Said(429, retry_after=nonsense))).retry_after == 0
    error = await refused(Said(429, retry_after="7"))
    assert (wait_before_retry(error, 0.25), wait_before_retry(error, 9.0)) == (7, 9.0)


async def test_too_many_requests_by_another_status() -> None:
    body = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}'
    assert deserves_retry(await refused(Said(403, body)))
    assert not deserves_retry(await refused(Said(403)))
