"""What every `worker.session.Session` promises, whoever implements it: in this process, and through the tunnel.

What a session does on its own host only is tested of the one that has it. The client behind the tunnel is grpcio's.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio

from buildengine.api.content import READ
from buildengine.api.content_pb2 import ReadContentRequest, ReadContentResponse
from buildengine.api.filesync_pb2 import BytesMessage
from buildengine.api.secrets_pb2 import GetSecretRequest, GetSecretResponse
from buildengine.builder import BuildRequest, Export, SecretSource, SshSource
from buildengine.daemon.local_session import DockerConfigCredentials, LocalSshAgents, local_session
from buildengine.digest import Digest
from buildengine.errors import ContextError, SourceError, UserError
from tests.builds import write
from tests.fakes.session_client import SessionClient, send_files, stream, unary
from tests.fakes.session_daemon import SessionDaemon, session_daemon
from worker.session import Session
from worker.sources.origin import LocalOrigin

Offer = Callable[..., Session]
SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
FILE_SYNC, FILE_SEND = "/moby.filesync.v1.FileSync/DiffCopy", "/moby.filesync.v1.FileSend/DiffCopy"


def local(
    tmp_path: Path,
    *,
    directories: dict[str, Path] | None = None,
    secrets: Sequence[SecretSource] = (),
    exports: Sequence[Export] = (),
    environment: dict[str, str] | None = None,
    dockerfile: bytes | None = None,
    layouts: dict[str, Path] | None = None,
) -> Session:
    request = BuildRequest(
        ref="one",
        directories=directories or {},
        secrets=tuple(secrets),
        exports=tuple(exports),
        inline_dockerfile=dockerfile,
        layouts=layouts or {},
    )
    credentials = DockerConfigCredentials(tmp_path / "config.json", {})
    return local_session(request, credentials=credentials, environment=environment or {})


class Tunnel:
    """Sessions through a daemon's tunnel. `close` it in a thread."""

    def __init__(self, daemon: SessionDaemon, socket: Path) -> None:
        self._daemon, self._socket = daemon, socket
        self._clients: list[SessionClient] = []

    def __call__(
        self,
        tmp_path: Path,
        *,
        directories: dict[str, Path] | None = None,
        secrets: Sequence[SecretSource] = (),
        exports: Sequence[Export] = (),
        environment: dict[str, str] | None = None,
        layouts: dict[str, Path] | None = None,
    ) -> Session:
        handlers = {SECRET: unary(GetSecretRequest, partial(_secret, secrets, environment or {}))}
        for name, path in (directories or {}).items():
            handlers[FILE_SYNC] = send_files(path, [], name)
        if layouts:
            handlers[READ] = stream(ReadContentRequest, partial(_read, layouts))
        if exports:
            handlers[FILE_SEND] = stream(BytesMessage, partial(_take, exports))
        place = self._socket.parent / f"client{len(self._clients)}"
        place.mkdir()
        id = f"session{len(self._clients)}"
        self._clients.append(SessionClient(self._socket, place, handlers, id=id, shared_key=""))
        return self._daemon.session(id)

    def close(self) -> None:
        for client in self._clients:
            client.close()


def _secret(
    sources: Sequence[SecretSource], environment: Mapping[str, str], request: GetSecretRequest, context: Any
) -> GetSecretResponse:
    for source in sources:
        if source.id == request.ID and source.file is not None:
            return GetSecretResponse(data=source.file.read_bytes())
        if source.id == request.ID and source.env in environment:
            return GetSecretResponse(data=environment[source.env].encode())
    return context.abort(grpc.StatusCode.NOT_FOUND, "not found")


def _read(layouts: Mapping[str, Path], requests: Iterator[Any], context: Any) -> Iterator[ReadContentResponse]:
    (request,) = requests
    store = dict(context.invocation_metadata())["buildkit-attachable-store-id"].removeprefix("oci:")
    blob = layouts[store] / "blobs" / request.digest.replace(":", "/") if store in layouts else None
    if blob is None or not blob.exists():
        context.abort(grpc.StatusCode.NOT_FOUND, "not found")
    assert blob is not None
    for number, byte in enumerate(blob.read_bytes()):
        yield ReadContentResponse(offset=number, data=bytes([byte]))


def _take(exports: Sequence[Export], messages: Iterator[Any], context: Any) -> Iterator[BytesMessage]:
    """Writes what has come, if it ends well: a cancelled call raises."""
    data = b"".join(message.data for message in messages)
    target = exports[int(dict(context.invocation_metadata())["buildkit-attachable-exporter-id"])].dest
    if context.is_active():
        Path(target or "").write_bytes(data)
    yield from ()


@pytest.fixture(params=["in this process", "through the tunnel"])
async def offer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Offer]:
    if request.param == "in this process":
        yield local
        return
    place = tmp_path_factory.mktemp("tunnel")
    async with session_daemon(place / "root", place / "daemon") as daemon:
        tunnel = Tunnel(daemon, place / "daemon")
        yield tunnel
        await trio.to_thread.run_sync(tunnel.close)


async def names(session: Session, directory: str) -> list[str] | None:
    """What is in a directory of the client's; None when it is not offered."""
    path = await session.directories.local_path(directory)
    if path is not None:
        return sorted(os.listdir(path))
    try:
        received = await session.directories.receive(LocalOrigin(name=directory), lambda count: None)
    except ContextError:
        return None
    if received is None:
        return None
    found = sorted(os.listdir(received.path))
    received.release()
    return found


async def test_a_directory_is_offered_by_name(offer: Offer, tmp_path: Path) -> None:
    (tmp_path / "directory" / "inner").mkdir(parents=True)
    (tmp_path / "directory" / "file").touch()
    session = offer(tmp_path, directories={"context": tmp_path / "directory"})
    assert await names(session, "context") == ["file", "inner"]
    assert await names(session, "other") is None


async def test_a_directory_of_this_host_is_offered_as_it_is(tmp_path: Path) -> None:
    session = local(tmp_path, directories={"context": tmp_path})
    assert await session.directories.local_path("context") == str(tmp_path)
    assert await session.directories.local_path("other") is None
    assert await session.directories.receive(LocalOrigin(name="context"), print) is None


async def test_what_is_no_directory_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    session = local(tmp_path, directories={"context": tmp_path / "file"})
    with pytest.raises(ContextError, match="not a directory"):
        await session.directories.local_path("context")


async def test_a_dockerfile_from_standard_input_is_a_file_of_its_directory(tmp_path: Path) -> None:
    session = local(tmp_path, dockerfile=b"FROM scratch\n")
    assert await session.directories.inline_files("dockerfile") == {"Dockerfile": b"FROM scratch\n"}
    assert await session.directories.inline_files("context") == {}


async def test_secrets_come_from_files_and_variables(offer: Offer, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"s3cret\n")
    sources = [SecretSource(id="file", file=tmp_path / "token"), SecretSource(id="env", env="TOKEN")]
    session = offer(tmp_path, secrets=sources, environment={"TOKEN": "from the environment"})
    from_file, from_variable = await session.secrets.get("file"), await session.secrets.get("env")
    assert from_file is not None
    assert from_variable is not None
    assert from_file.reveal() == b"s3cret\n"
    assert from_variable.reveal() == b"from the environment"
    assert "s3cret" not in f"{from_file!r} {from_file}"


async def test_an_absent_secret_is_a_value_not_an_error(offer: Offer, tmp_path: Path) -> None:
    session = offer(tmp_path, secrets=[SecretSource(id="env", env="NOT_SET")])
    assert await session.secrets.get("nobody") is None
    assert await session.secrets.get("env") is None


async def test_a_secret_is_bounded(offer: Offer, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * (501 << 10))
    session = offer(tmp_path, secrets=[SecretSource(id="large", file=tmp_path / "large")])
    with pytest.raises(UserError, match="larger than"):
        await session.secrets.get("large")


async def test_a_secret_of_this_host_is_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    session = local(tmp_path, secrets=[SecretSource(id="fifo", file=tmp_path / "fifo")])
    with pytest.raises(UserError, match="not a regular file"):
        await session.secrets.get("fifo")


async def test_no_agent_and_no_credentials_are_values(offer: Offer, tmp_path: Path) -> None:
    session = offer(tmp_path)
    assert await session.ssh_agents.open("default") is None
    assert await session.credentials.get("registry.example") is None


async def test_an_agent_is_a_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(tmp_path / "agent"))
    (tmp_path / "key").touch()
    agents = LocalSshAgents(
        sources={
            "default": SshSource(paths=(tmp_path / "agent",)),
            "key": SshSource(id="key", paths=(tmp_path / "key",)),
        }
    )
    opened = await agents.open("default")
    assert opened is not None
    async with opened as path:
        assert path == str(tmp_path / "agent")
    assert await agents.open("other") is None
    with pytest.raises(UserError, match="key is not the socket of an agent"):
        await agents.open("key")


async def test_blobs_of_a_layout(offer: Offer, tmp_path: Path) -> None:
    there, absent = Digest.sha256(b"a blob"), Digest.sha256(b"another")
    write(tmp_path / "layout", {f"blobs/sha256/{there.hex}": "a blob"})
    session = offer(tmp_path, layouts={"store": tmp_path / "layout"})
    async with session.layouts.find("store", "").open(there) as pieces:
        assert b"".join([piece async for piece in pieces]) == b"a blob"
    for store, digest in (("store", absent), ("other", there)):
        with pytest.raises(SourceError):
            async with session.layouts.find(store, "").open(digest) as pieces:
                assert [piece async for piece in pieces] == []


async def test_a_file_appears_whole_or_not_at_all(offer: Offer, tmp_path: Path) -> None:
    target = tmp_path / "out" / "image.tar"
    target.parent.mkdir()
    session = offer(tmp_path, exports=[Export(type="oci", dest=str(target))])
    sink = session.sinks.file(0)
    assert sink is not None
    with contextlib.suppress(RuntimeError):
        async with sink as fd:
            os.write(fd, b"half")
            raise RuntimeError
    assert os.listdir(target.parent) == []
    for content in (b"whole", b"again"):
        sink = session.sinks.file(0)
        assert sink is not None
        async with sink as fd:
            os.write(fd, content)
        assert target.read_bytes() == content
    assert os.listdir(target.parent) == ["image.tar"]


async def test_an_export_without_destination_has_no_sink(tmp_path: Path) -> None:
    session = local(tmp_path, exports=[Export(type="image")])
    assert session.sinks.file(0) is None
    assert session.sinks.directory(0) is None
