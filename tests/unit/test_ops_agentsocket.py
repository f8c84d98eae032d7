"""Conversations between a step and an agent: whoever ends one, it ends for both."""

from __future__ import annotations

import os
import resource
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from buildengine.errors import HostError
from llb.ops import SSHOpt
from worker.ops.agentsocket import agent_socket

SECONDS = 10  # a conversation that does not end fails the test


async def listen(path: Path) -> trio.SocketListener:
    socket = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    await socket.bind(str(path))
    socket.listen()
    return trio.SocketListener(socket)


async def test_a_half_closed_conversation_still_gets_its_answer(tmp_path: Path) -> None:
    agent = await listen(tmp_path / "agent")
    option = SSHOpt(id="default", uid=0, gid=0, mode=0o600)
    with trio.fail_after(SECONDS):
        async with agent, agent_socket(str(tmp_path / "agent"), option, spool=tmp_path, owner="lease") as path:
            assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
            async with await trio.open_unix_socket(path) as step, await agent.accept() as there:
                await step.send_all(b"question")
                await step.send_eof()
                assert b"".join([data async for data in there]) == b"question"
                await there.send_all(b"answer")
                await there.aclose()
                assert b"".join([data async for data in step]) == b"answer"
    assert [one.name for one in tmp_path.iterdir()] == ["agent"]


async def test_a_step_that_dies_with_an_answer_unread_leaves_the_agent(tmp_path: Path) -> None:
    agent = await listen(tmp_path / "agent")
    option = SSHOpt(id="default", uid=0, gid=0, mode=0o600)
    with trio.fail_after(SECONDS):
        async with agent, agent_socket(str(tmp_path / "agent"), option, spool=tmp_path, owner="lease") as path:
            step = await trio.open_unix_socket(path)
            async with await agent.accept() as there:
                await there.send_all(b"answer")
                await trio.lowlevel.wait_readable(step.socket)
                await step.aclose()
                assert await there.receive_some() == b""


async def test_the_end_of_the_block_ends_what_is_said(tmp_path: Path) -> None:
    agent = await listen(tmp_path / "agent")
    option = SSHOpt(id="default", uid=0, gid=0, mode=0o600)
    with trio.fail_after(SECONDS):
        async with agent:
            async with agent_socket(str(tmp_path / "agent"), option, spool=tmp_path, owner="lease") as path:
                step = await trio.open_unix_socket(path)
                there = await agent.accept()
            async with step, there:
                assert await step.receive_some() == b""
                assert await there.receive_some() == b""


@contextmanager
def no_more_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(lowest := os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def connect_without_files(spool: Path) -> None:
    option = SSHOpt(id="default", uid=0, gid=0, mode=0o600)
    with socket.socket(socket.AF_UNIX) as step:
        async with agent_socket(str(spool / "agent"), option, spool=spool, owner="lease") as path:
            with no_more_files():
                step.connect(path)
                await trio.sleep(SECONDS)


async def test_no_descriptor_for_a_connection_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot connect the step to the ssh agent: Too many open files") as raised:
        await connect_without_files(tmp_path)
    assert "ulimit -n" in (raised.value.hint or "")
    assert list(tmp_path.iterdir()) == []
