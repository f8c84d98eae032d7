"""What a build asks of a client elsewhere, answered by grpcio through the tunnel."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from buildengine.api import auth_pb2, filesync_pb2, secrets_pb2, ssh_pb2, upload_pb2
from buildengine.api.sessions import SessionGone
from buildengine.errors import ContextError, SourceError, StoreError, UserError
from buildengine.events import Event, StatusEvent
from cache.selection import Selector
from cache.usage import directories
from solver.reporter import Reporter
from tests.fakes.session_client import Handlers, send_files, session_client, stream, unary
from tests.fakes.session_daemon import SessionDaemon, session_daemon
from worker.localtree import LocalDirectory, LocalTree
from worker.ops.local import LocalSource
from worker.session import IDENTITY_TOKEN
from worker.sources.origin import LocalOrigin

SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
CREDENTIALS = "/moby.filesync.v1.Auth/Credentials"
FILE_SYNC = "/moby.filesync.v1.FileSync/DiffCopy"
FILE_SEND = "/moby.filesync.v1.FileSend/DiffCopy"
CHECK_AGENT, FORWARD_AGENT = "/moby.sshforward.v1.SSH/CheckAgent", "/moby.sshforward.v1.SSH/ForwardAgent"
PULL = "/moby.upload.v1.Upload/Pull"


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[SessionDaemon]:
    async with session_daemon(tmp_path / "root", tmp_path / "daemon") as running:
        yield running


class Client:
    """A client for the block, and its session."""

    def __init__(self, daemon: SessionDaemon, tmp_path: Path, handlers: Handlers) -> None:
        self._client = session_client(tmp_path / "daemon", tmp_path, handlers)
        self._daemon = daemon

    async def __aenter__(self) -> Any:
        self.running = await trio.to_thread.run_sync(self._client.__enter__)
        return self._daemon.session("one")

    async def __aexit__(self, *error: object) -> None:
        await trio.to_thread.run_sync(self._client.__exit__, None, None, None)


def get_secret(request: Any, context: grpc.ServicerContext) -> Any:
    if request.ID == "token":
        return secrets_pb2.GetSecretResponse(data=b"s3cret")
    if request.ID == "large":
        return secrets_pb2.GetSecretResponse(data=bytes(501 << 10))
    code = grpc.StatusCode.NOT_FOUND if request.ID == "none" else grpc.StatusCode.UNKNOWN
    return context.abort(code, "the vault is shut")


async def test_secrets(daemon: SessionDaemon, tmp_path: Path) -> None:
    async with Client(daemon, tmp_path, {SECRET: unary(secrets_pb2.GetSecretRequest, get_secret)}) as session:
        assert (await session.secrets.get("token")).reveal() == b"s3cret"
        assert await session.secrets.get("none") is None
        with pytest.raises(UserError, match="larger than"):
            await session.secrets.get("large")
        with pytest.raises(SourceError, match="the vault is shut"):
            await session.secrets.get("other")


def get_credentials(request: Any, context: grpc.ServicerContext) -> Any:
    known = {"registry-1.docker.io": ("me", "pass"), "token.example": ("", "refresh")}
    name, secret = known.get(request.Host, ("", ""))
    return auth_pb2.CredentialsResponse(Username=name, Secret=secret)


async def test_credentials(daemon: SessionDaemon, tmp_path: Path) -> None:
    async with Client(daemon, tmp_path, {CREDENTIALS: unary(auth_pb2.CredentialsRequest, get_credentials)}) as session:
        hub = await session.credentials.get("docker.io")
        assert (hub.username, hub.password.reveal()) == ("me", b"pass")
        token = await session.credentials.get("token.example")
        assert (token.username, token.password.reveal()) == (IDENTITY_TOKEN, b"refresh")
        assert await session.credentials.get("other.example") is None


async def test_tokens_that_the_client_fetches(daemon: SessionDaemon, tmp_path: Path) -> None:
    """A client with an authority keeps its secret; one whose authority is switched off does not fetch."""
    asked: list[Any] = []

    def authority(request: Any, context: grpc.ServicerContext) -> Any:
        if request.Host == "off.example":
            context.abort(grpc.StatusCode.UNAVAILABLE, "client side tokens disabled")
        return auth_pb2.GetTokenAuthorityResponse(PublicKey=request.Salt)

    def fetch(request: Any, context: grpc.ServicerContext) -> Any:
        asked.append(request)
        if request.Realm == "https://broken.example/":
            context.abort(grpc.StatusCode.UNKNOWN, "the token service said 500")
        return auth_pb2.FetchTokenResponse(Token="t0ken", ExpiresIn=300)

    handlers = {
        "/moby.filesync.v1.Auth/GetTokenAuthority": unary(auth_pb2.GetTokenAuthorityRequest, authority),
        "/moby.filesync.v1.Auth/FetchToken": unary(auth_pb2.FetchTokenRequest, fetch),
    }
    async with Client(daemon, tmp_path, handlers) as session:
        tokens = session.credentials.tokens
        given = {"service": "s", "scopes": ("repository:a:pull", "repository:b:push")}
        token = await tokens.fetch("docker.io", realm="https://auth.docker.io/token", **given)
        assert (token.value.reveal(), token.life) == (b"t0ken", 300)
        assert await tokens.fetch("off.example", realm="https://off.example/", **given) is None
        with pytest.raises(SourceError, match=r"a token for broken\.example: the token service said 500"):
            await tokens.fetch("broken.example", realm="https://broken.example/", **given)
    first = asked[0]
    assert (first.Host, first.Realm, first.Service) == ("registry-1.docker.io", "https://auth.docker.io/token", "s")
    assert list(first.Scopes) == ["repository:a:pull", "repository:b:push"]
    assert [request.Host for request in asked] == ["registry-1.docker.io", "broken.example"]


async def test_what_a_client_does_not_serve_it_does_not_have(daemon: SessionDaemon, tmp_path: Path) -> None:
    async with Client(daemon, tmp_path, {}) as session:
        assert await session.secrets.get("token") is None
        assert await session.credentials.get("docker.io") is None
        assert await session.credentials.tokens.fetch("docker.io", realm="", service="", scopes=()) is None
        assert await session.ssh_agents.open("default") is None
        with pytest.raises(ContextError, match="no local sources enabled"):
            await session.directories.receive(LocalOrigin(name="context"), print)
        with pytest.raises(UserError, match="takes no exports"):
            async with session.sinks.file(0):
                pass


def check_agent(request: Any, context: grpc.ServicerContext) -> Any:
    if request.ID != "default":
        context.abort(grpc.StatusCode.UNKNOWN, f"unset ssh forward key {request.ID}")
    return ssh_pb2.CheckAgentResponse()


def shout(messages: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
    """An agent that says everything again, in capitals, and its own name at the end."""
    for message in messages:
        yield ssh_pb2.BytesMessage(data=message.data.upper())
    yield ssh_pb2.BytesMessage(data=dict(context.invocation_metadata())["buildkit.ssh.id"].encode())


async def test_an_agent_is_a_socket_for_any_number_of_connections(daemon: SessionDaemon, tmp_path: Path) -> None:
    handlers = {
        CHECK_AGENT: unary(ssh_pb2.CheckAgentRequest, check_agent),
        FORWARD_AGENT: stream(ssh_pb2.BytesMessage, shout),
    }
    async with Client(daemon, tmp_path, handlers) as session:
        assert await session.ssh_agents.open("other") is None
        async with await session.ssh_agents.open("") as path:
            for said in (b"hello", b"x" * 100_000):
                async with await trio.open_unix_socket(path) as agent:
                    await agent.send_all(said)
                    await agent.send_eof()
                    assert b"".join([data async for data in agent]) == said.upper() + b"default"
        assert os.listdir(daemon.cache.root / "ingest") == []


async def test_a_directory_is_received_and_kept_for_the_next_build(daemon: SessionDaemon, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "dir").mkdir(parents=True)
    (source / "dir" / "file").write_bytes(b"content")
    (source / "other").write_bytes(b"x" * 100_000)
    asked: list[dict[str, list[str]]] = []
    counts: list[int] = []
    origin = LocalOrigin(name="context", include_patterns=("di r", "süß"), follow_paths=("dir/file",))
    async with Client(daemon, tmp_path, {FILE_SYNC: send_files(source, asked)}) as session:
        first = await session.directories.receive(origin, counts.append)
        await trio.run_process(["diff", "-r", source, first.path])
        assert asked[0]["followpaths"] == ["dir/file"]
        assert (asked[0]["include-patterns"], asked[0]["include-patterns-encoded"]) == (
            ["di+r", "s%C3%BC%C3%9F"],
            ["1"],
        )
        assert 100_007 < counts[-1] < 101_000  # the files, and the packets around them
        busy = await session.directories.receive(origin, counts.append)
        assert busy.path != first.path
        first.release()
        busy.release()
        (source / "other").unlink()
        await trio.testing.wait_all_tasks_blocked(0.01)
        again = await session.directories.receive(origin, counts.append)
        assert again.path in (first.path, busy.path)
        assert 0 < counts[-1] < 1000  # the listing
        assert sorted(os.listdir(again.path)) == ["dir"]
        with pytest.raises(ContextError, match="no access allowed"):
            await session.directories.receive(LocalOrigin(name="elsewhere"), counts.append)


def take(taken: list[bytes], answer: grpc.StatusCode | None = None) -> grpc.RpcMethodHandler:
    def diff_copy(messages: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        if answer is not None:
            context.abort(answer, "no room")
        told = dict(context.invocation_metadata())
        about = (f"{name}={value}" for name, value in told.items() if name.startswith("exporter-md-"))
        taken.append(" ".join([told["buildkit-attachable-exporter-id"], *about]).encode())
        taken.extend(message.data for message in messages)
        yield from ()

    return stream(filesync_pb2.BytesMessage, diff_copy)


async def test_a_file_sink_is_a_stream_to_the_client(daemon: SessionDaemon, tmp_path: Path) -> None:
    taken: list[bytes] = []
    content = os.urandom(5 << 20)
    about = {"containerimage.digest": "sha256:1"}
    async with Client(daemon, tmp_path, {FILE_SEND: take(taken)}) as session, session.sinks.file(3, about) as fd:
        await trio.to_thread.run_sync(_write, fd, content)
    assert (taken[0], b"".join(taken[1:])) == (b"3 exporter-md-containerimage.digest=sha256:1", content)


async def test_a_client_that_takes_no_file_is_an_error_unless_it_has_it(daemon: SessionDaemon, tmp_path: Path) -> None:
    async with Client(daemon, tmp_path, {FILE_SEND: take([], grpc.StatusCode.RESOURCE_EXHAUSTED)}) as session:
        with pytest.raises(SourceError, match="no room"):
            async with session.sinks.file(0) as fd:
                await trio.to_thread.run_sync(_write, fd, bytes(5 << 20))


async def test_a_client_that_has_the_file_is_content(daemon: SessionDaemon, tmp_path: Path) -> None:
    client = Client(daemon, tmp_path, {FILE_SEND: take([], grpc.StatusCode.ALREADY_EXISTS)})
    async with client as session, session.sinks.file(0) as fd:
        await trio.to_thread.run_sync(_write, fd, bytes(5 << 20))


def _write(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


async def test_an_upload_is_pulled(daemon: SessionDaemon, tmp_path: Path) -> None:
    def pull(messages: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        metadata = dict(context.invocation_metadata())
        yield upload_pb2.BytesMessage(data=f"{metadata['urlhost']} {metadata['urlpath']}".encode())

    client = Client(daemon, tmp_path, {PULL: stream(upload_pb2.BytesMessage, pull)})
    async with client as session, session.uploads.pull("buildkit-session", "/id") as pieces:
        assert [piece async for piece in pieces] == [b"buildkit-session /id"]


async def test_a_client_that_vanishes_ends_what_only_it_wanted(daemon: SessionDaemon, tmp_path: Path) -> None:
    client = Client(daemon, tmp_path, {})
    async with client:
        found = await daemon.sessions.get("prefix:one")
        with pytest.raises(SessionGone), found.alive():
            await trio.sleep(client.running.vanish() or 60)
        assert found.ended
    assert len(daemon.sessions) == 0


async def test_a_received_directory_is_a_source_until_nobody_holds_it(daemon: SessionDaemon, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "dir").mkdir(parents=True)
    (source / "dir" / "file").write_bytes(b"content")
    here = LocalTree(LocalDirectory(daemon.cache, str(source), LocalOrigin(name="context")))
    said: list[Event] = []
    reporter = Reporter("a vertex")
    reporter.bind(said.append)
    async with Client(daemon, tmp_path, {FILE_SYNC: send_files(source, [])}) as session:
        context: Any = SimpleNamespace(session=session, cache=daemon.cache, reporter=reporter, name="a step")
        (there,) = await LocalSource(context, LocalOrigin(name="context")).exec([])
        assert isinstance(there, LocalTree)
        last = said[-1]
        assert isinstance(last, StatusEvent)
        assert (last.id, last.completed is not None) == ("transferring context:", True)
        assert last.current > 7  # the packets of the listing count, as in BuildKit
        assert await there.content_digest((Selector(),)) == await here.content_digest((Selector(),))
        other = there.clone()
        there.release()
        used = [(info.kind, info.description, info.in_use) for info in directories(daemon.cache, {})]
        assert used == [("source.local", "local source for context", True)]
        other.release()
    here.release()


async def test_a_store_that_breaks_meanwhile_is_no_end_of_the_daemon(daemon: SessionDaemon, tmp_path: Path) -> None:
    """What a directory of it was used for is over: that this cannot be written down is for the next who needs it."""
    (tmp_path / "source").mkdir()
    origin = LocalOrigin(name="context")
    async with Client(daemon, tmp_path, {FILE_SYNC: send_files(tmp_path / "source", [])}) as session:
        received = await session.directories.receive(origin, lambda count: None)
        with closing(sqlite3.connect(daemon.cache.root / "meta.db")) as other:
            other.execute("ALTER TABLE cachemounts RENAME TO elsewhere")
            received.release()
            await wait_all_tasks_blocked(0.05)
            with pytest.raises(StoreError):
                await session.directories.receive(origin, lambda count: None)
            other.execute("ALTER TABLE elsewhere RENAME TO cachemounts")
        again = await session.directories.receive(origin, lambda count: None)
        assert again.path == received.path  # nobody has its lock
