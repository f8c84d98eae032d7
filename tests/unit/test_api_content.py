"""containerd's Content service, read: whole and in parts, and what it refuses."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from buildengine.api import content_pb2 as pb
from buildengine.api.content import SERVICE, Content
from buildengine.api.rpc import Code, RpcError
from buildengine.digest import Digest

LARGE = os.urandom(3 << 20)
SMALL = b"hello"
HELD = {Digest.sha256(data): data for data in (LARGE, SMALL)}


class Held:
    """`api.content.Blobs`"""

    @contextmanager
    def blob(self, digest: Digest) -> Iterator[int | None]:
        if digest not in HELD:
            yield None
            return
        with tempfile.TemporaryFile() as file:
            file.write(HELD[digest])
            file.flush()
            yield file.fileno()

    def blobs(self) -> Iterable[Digest]:
        return HELD


class Call:
    """A call with one message in."""

    path, metadata = "", ()

    def __init__(self, request: Any) -> None:
        self._requests = [request]
        self.answers: list[Any] = []

    async def send_initial_metadata(self, metadata: Any) -> None: ...

    async def receive(self) -> Any:
        return self._requests.pop() if self._requests else None

    async def send(self, message: Any) -> None:
        self.answers.append(message)


async def ask(method: str, request: Any) -> list[Any]:
    call = Call(request)
    await Content(Held()).services[f"/{SERVICE}/{method}"].handler(call)
    return call.answers


@pytest.mark.parametrize(("offset", "size"), [(0, 0), (1, 0), (5, 1 << 20), ((3 << 20) - 1, 1), (3 << 20, 0)])
async def test_read(offset: int, size: int) -> None:
    digest = Digest.sha256(LARGE)
    answers = await ask("Read", pb.ReadContentRequest(digest=digest, offset=offset, size=size))
    wanted = LARGE[offset : offset + size] if size else LARGE[offset:]
    assert b"".join(answer.data for answer in answers) == wanted
    assert [answer.offset for answer in answers] == list(range(offset, offset + len(wanted), 1 << 20))


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (pb.ReadContentRequest(digest=Digest.sha256(SMALL), offset=6), Code.OUT_OF_RANGE),
        (pb.ReadContentRequest(digest=Digest.sha256(SMALL), offset=3, size=3), Code.OUT_OF_RANGE),
        (pb.ReadContentRequest(digest=Digest.sha256(SMALL), offset=-1), Code.OUT_OF_RANGE),
        (pb.ReadContentRequest(digest=Digest.sha256(b"other")), Code.NOT_FOUND),
        (pb.ReadContentRequest(digest="../../etc/passwd"), Code.INVALID_ARGUMENT),
    ],
)
async def test_what_cannot_be_read(request_: Any, code: Code) -> None:
    with pytest.raises(RpcError) as caught:
        await ask("Read", request_)
    assert caught.value.code is code


async def test_info_and_list() -> None:
    (answer,) = await ask("Info", pb.InfoRequest(digest=Digest.sha256(SMALL)))
    assert (answer.info.digest, answer.info.size) == (Digest.sha256(SMALL), 5)
    (answer,) = await ask("List", pb.ListContentRequest())
    assert [info.digest for info in answer.info] == sorted(HELD)
    (answer,) = await ask("List", pb.ListContentRequest(filters=[f"digest=={Digest.sha256(SMALL)}"]))
    assert [info.size for info in answer.info] == [5]
    with pytest.raises(RpcError):
        await ask("Info", pb.InfoRequest(digest=Digest.sha256(b"other")))


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("Write", pb.WriteContentRequest()),
        ("Delete", pb.DeleteContentRequest()),
        ("Update", pb.UpdateRequest()),
        ("Abort", pb.AbortRequest()),
    ],
)
async def test_nothing_is_written(method: str, request_: Any) -> None:
    with pytest.raises(RpcError, match="read-only content store"):
        await ask(method, request_)


async def test_nobody_writes() -> None:
    assert await ask("ListStatuses", pb.ListStatusesRequest()) == [pb.ListStatusesResponse()]
    with pytest.raises(RpcError, match="not found"):
        await ask("Status", pb.StatusRequest(ref="x"))
