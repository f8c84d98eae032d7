"""BuildKit's own client behind our sessions: buildctl sends directories and secrets, takes exports, and vanishes."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import trio

from buildengine.api.session import RemoteSession
from buildengine.api.sessions import SessionGone
from buildengine.errors import SourceError
from llb.state import mkdir, scratch
from tests.conformance.peer import directory
from tests.fakes.session_daemon import Build, SessionDaemon, session_daemon
from tests.unit.llb_samples import AMD64
from tests.unit.test_api_fstransfer import seen
from tests.unit.test_api_fstransfer import source as source  # a tree with one of everything
from worker.sources.origin import LocalOrigin

DEFINITION = scratch().file(mkdir("/unused")).marshal(AMD64).to_bytes()
CONTEXT = LocalOrigin(name="context")
_AROUND = 10_000  # bytes at most of the packets of a listing, and around the files


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[SessionDaemon]:
    async with session_daemon(tmp_path / "root", tmp_path / "daemon") as running:
        yield running


async def build(daemon: SessionDaemon, tmp_path: Path, body: Build, arguments: Sequence[str]) -> None:
    """`body` is what the build asks of its client."""
    daemon.build = body
    argv = [str(directory() / "buildctl"), "--addr", f"unix://{tmp_path}/daemon", "build", "--progress=plain"]
    done = await trio.run_process([*argv, *arguments], stdin=DEFINITION, capture_stderr=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


async def receive(
    daemon: SessionDaemon, tmp_path: Path, source: Path, origin: LocalOrigin = CONTEXT
) -> tuple[Path, int]:
    """Where the directory is, and how many bytes came."""
    counts = [0]
    paths: list[str] = []

    async def body(session: RemoteSession) -> None:
        received = await session.directories.receive(origin, counts.append)
        assert received is not None
        paths.append(received.path)
        received.release()

    await build(daemon, tmp_path, body, ["--local", f"context={source}"])
    return Path(paths[0]), counts[-1]


def of_root(root: Path) -> Path:
    """buildctl sends everything as root's."""
    for path in root.rglob("*"):
        mode = path.lstat().st_mode
        os.chown(path, 0, 0, follow_symlinks=False)
        if stat.S_ISREG(mode):
            path.chmod(stat.S_IMODE(mode))  # chown took the set-ID bits
    return root


async def test_a_context_is_received_as_it_is_and_only_once(
    daemon: SessionDaemon, tmp_path: Path, source: Path
) -> None:
    of_root(source)
    path, count = await receive(daemon, tmp_path, source)
    assert count > 5 << 20
    assert seen(path) == seen(source)
    again, listing = await receive(daemon, tmp_path, source)
    assert (again, 0 < listing < _AROUND) == (path, True)
    (source / "a-b").write_bytes(b"changed")
    (source / "empty").unlink()
    again, count = await receive(daemon, tmp_path, source)
    assert (again, 7 < count < _AROUND) == (path, True)
    assert seen(path) == seen(source)


async def test_patterns_and_links_are_the_clients_work(daemon: SessionDaemon, tmp_path: Path, source: Path) -> None:
    origin = LocalOrigin(name="context", include_patterns=("süß", "a.*"), follow_paths=("a/b/link",))
    (source / "süß").write_bytes(b"sweet")
    path, _ = await receive(daemon, tmp_path, source, origin)
    found = sorted(str(entry.relative_to(path)) for entry in path.rglob("*"))
    assert found == ["a", "a.other", "a/b", "a/b/link", "a/file", "süß"]


async def test_of_most_only_the_stats_may_be_sent(daemon: SessionDaemon, tmp_path: Path, source: Path) -> None:
    origin = LocalOrigin(name="context", metadata_only=True, metadata_exceptions=("a/b/l*",))
    path, count = await receive(daemon, tmp_path, source, origin)
    found = sorted(str(entry.relative_to(path)) for entry in path.rglob("*"))
    assert found == [".fsutil-metadata", "a", "a/b", "a/b/large", "a/b/link"]
    assert 5 << 20 < count < (5 << 20) + _AROUND


async def test_a_directory_that_is_not_offered(daemon: SessionDaemon, tmp_path: Path, source: Path) -> None:
    async def body(session: RemoteSession) -> None:
        with pytest.raises(SourceError, match="no access allowed to dir"):
            await session.directories.receive(LocalOrigin(name="other"), print)

    await build(daemon, tmp_path, body, ["--local", f"context={source}"])


async def test_secrets(daemon: SessionDaemon, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"s3cret\n")

    async def body(session: RemoteSession) -> None:
        found = await session.secrets.get("token")
        assert found is not None
        assert found.reveal() == b"s3cret\n"
        assert await session.secrets.get("other") is None
        assert await session.credentials.get("registry.example") is None
        assert await session.ssh_agents.open("default") is None

    await build(daemon, tmp_path, body, ["--secret", f"id=token,src={tmp_path}/token"])


async def test_an_ssh_agent_answers(daemon: SessionDaemon, tmp_path: Path) -> None:
    (tmp_path / "agent").mkdir()
    argv = ["ssh-agent", "-D", "-a", str(tmp_path / "agent" / "socket")]
    agent = await trio.lowlevel.open_process(argv, stdout=subprocess.PIPE)
    try:
        assert agent.stdout is not None
        await agent.stdout.receive_some(1)  # it says where its socket is

        async def body(session: RemoteSession) -> None:
            opened = await session.ssh_agents.open("default")
            assert opened is not None
            async with opened as path:
                listed = await trio.run_process(
                    ["ssh-add", "-l"], env={**os.environ, "SSH_AUTH_SOCK": path}, capture_stdout=True, check=False
                )
            assert listed.stdout == b"The agent has no identities.\n"

        await build(daemon, tmp_path, body, ["--ssh", f"default={tmp_path}/agent/socket"])
    finally:
        agent.terminate()
        await agent.wait()
        if agent.stdout is not None:
            await agent.stdout.aclose()


async def test_a_directory_is_exported(daemon: SessionDaemon, tmp_path: Path, source: Path) -> None:
    async def body(session: RemoteSession) -> None:
        sink = session.sinks.directory(0)
        assert sink is not None
        async with sink as path:
            await trio.run_process(["cp", "-a", f"{source}/.", path])

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").touch()
    await build(daemon, tmp_path, body, ["--output", f"type=local,dest={tmp_path}/out"])
    (tmp_path / "out" / "kept").unlink()
    assert seen(tmp_path / "out") == seen(of_root(source))


async def test_a_file_is_exported(daemon: SessionDaemon, tmp_path: Path) -> None:
    content = os.urandom(9 << 20)

    async def body(session: RemoteSession) -> None:
        sink = session.sinks.file(0)
        assert sink is not None
        async with sink as fd:
            view = memoryview(content)
            while view:
                view = view[await trio.to_thread.run_sync(os.write, fd, view) :]

    await build(daemon, tmp_path, body, ["--output", f"type=tar,dest={tmp_path}/out.tar"])
    assert (tmp_path / "out.tar").read_bytes() == content


async def test_a_client_that_is_killed_is_gone(daemon: SessionDaemon, tmp_path: Path, source: Path) -> None:
    ended = trio.Event()

    async def body(session: RemoteSession) -> None:
        found = await daemon.sessions.get(session.id)
        with trio.CancelScope(shield=True), pytest.raises(SessionGone), found.alive():
            await trio.sleep(clients[0].kill() or 60)
        ended.set()

    daemon.build = body
    argv = [str(directory() / "buildctl"), "--addr", f"unix://{tmp_path}/daemon", "build", "--progress=plain"]
    clients = [await trio.lowlevel.open_process([*argv, "--local", f"context={source}"], stdin=subprocess.PIPE)]
    stdin = clients[0].stdin
    assert stdin is not None
    await stdin.send_all(DEFINITION)
    await stdin.aclose()
    await clients[0].wait()
    await ended.wait()
