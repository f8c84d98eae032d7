"""What every `worker.session.Session` promises, whoever implements it. The tunnel's will be one more parameter here."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from buildengine.builder import BuildRequest, Export, SecretSource, SshSource
from buildengine.daemon.local_session import DockerConfigCredentials, LocalSshAgents, local_session
from buildengine.errors import ContextError, UserError
from worker.session import Session

Offer = Callable[..., Session]


def local(
    tmp_path: Path,
    *,
    directories: dict[str, Path] | None = None,
    secrets: Sequence[SecretSource] = (),
    exports: Sequence[Export] = (),
    environment: dict[str, str] | None = None,
    dockerfile: bytes | None = None,
) -> Session:
    request = BuildRequest(
        ref="one",
        directories=directories or {},
        secrets=tuple(secrets),
        exports=tuple(exports),
        inline_dockerfile=dockerfile,
    )
    credentials = DockerConfigCredentials(tmp_path / "config.json", {})
    return local_session(request, credentials=credentials, environment=environment or {})


@pytest.fixture(params=[local], ids=["in this process"])
def offer(request: pytest.FixtureRequest) -> Offer:
    implementation: Offer = request.param
    return implementation


async def test_a_directory_is_offered_by_name(offer: Offer, tmp_path: Path) -> None:
    session = offer(tmp_path, directories={"context": tmp_path})
    assert await session.directories.local_path("context") == str(tmp_path)
    assert await session.directories.local_path("other") is None


async def test_what_is_no_directory_is_the_users_mistake(offer: Offer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    session = offer(tmp_path, directories={"context": tmp_path / "file"})
    with pytest.raises(ContextError, match="not a directory"):
        await session.directories.local_path("context")


async def test_a_dockerfile_from_standard_input_is_a_file_of_its_directory(offer: Offer, tmp_path: Path) -> None:
    session = offer(tmp_path, dockerfile=b"FROM scratch\n")
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


async def test_a_secret_is_a_bounded_regular_file(offer: Offer, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b"x" * (501 << 10))
    sources = [SecretSource(id="fifo", file=tmp_path / "fifo"), SecretSource(id="large", file=tmp_path / "large")]
    session = offer(tmp_path, secrets=sources)
    with pytest.raises(UserError, match="not a regular file"):
        await session.secrets.get("fifo")
    with pytest.raises(UserError, match="larger than"):
        await session.secrets.get("large")


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


async def test_an_export_without_destination_has_no_sink(offer: Offer, tmp_path: Path) -> None:
    session = offer(tmp_path, exports=[Export(type="image")])
    assert session.sinks.file(0) is None
    assert session.sinks.directory(0) is None
