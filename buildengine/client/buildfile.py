"""The process of a build file: reads it through the gateway, runs its `build`, says what has come of it, and ends.

The engine starts it in a sandbox (`buildengine.daemon.buildfile`) with a socket as standard input, which carries the
gateway's calls, and this build's request in a file. What it prints is the build's log. Nobody trusts it: what it does
here is for its author, what it may do is the engine's to say.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import trio

from buildengine import platform as platforms
from buildengine.client.buildmodules import Modules
from buildengine.client.frames import Channel
from buildengine.client.gateway import RemoteGateway
from buildengine.client.mistakes import Mistakes
from buildengine.errors import SourceError, UserError, meant
from frontends.gateway import FrontendRequest
from frontends.python.building import run_in
from frontends.python.context import Context
from frontends.python.contexts import beside, build_file
from frontends.python.installed import installed
from frontends.python.result import Build
from llb.annotations import locate_with

REQUEST = "/run/pybuild/request.json"

_T = TypeVar("_T")


def main() -> None:
    """Never fails but by what the build file does to it: what goes wrong is told to the engine."""
    channel = Channel(_taken_over())
    with open(REQUEST, "rb") as file:
        asked = json.load(file)
    trio.run(_work, channel, asked, strict_exception_groups=True)


def _taken_over() -> socket.socket:
    """Standard input is the engine's; standard output and error are the log."""
    end = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.stdout = os.fdopen(1, "w", buffering=1)  # line by line: in the order in which it is said, beside errors
    return end


async def _work(channel: Channel, asked: dict[str, Any]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.run)
        gateway = RemoteGateway(channel.call)
        await _frontend(gateway, channel, asked)
        nursery.cancel_scope.cancel()


async def _frontend(gateway: RemoteGateway, channel: Channel, asked: dict[str, Any]) -> None:
    mistakes = Mistakes({})
    try:
        request = await _request(gateway, asked)
        ctx = Context(gateway, request)
        modules = Modules(_reader(channel, request))
        modules.install()
        mistakes = Mistakes(modules.sources)
        locate_with(mistakes.place)
        build = await _loaded(ctx, modules, asked)
        result = await run_in(ctx, build)
    except BaseException as error:
        mistakes.show(error)
        await gateway.fail(mistakes.told(error))
    else:
        await gateway.finish(result)


async def _request(gateway: RemoteGateway, asked: dict[str, Any]) -> FrontendRequest:
    return FrontendRequest(
        options=asked["options"],
        platforms=tuple(map(platforms.from_json, asked["platforms"])),
        build_platform=platforms.from_json(asked["build_platform"]),
        session=asked["session"],
        inputs=await gateway.inputs() if asked["has_inputs"] else {},
    )


async def _loaded(ctx: Context, modules: Modules, asked: dict[str, Any]) -> Build:
    """The author's `build`, of the build file or of the installed package that the request names."""
    if asked["entry_point"]:
        return installed(asked["entry_point"])
    name = asked["filename"]
    try:
        source = await (await build_file(ctx)).read(name)
    except SourceError:
        raise SourceError(f"failed to read build file: open {name}: no such file or directory") from None
    module = modules.load(name, source)
    build = vars(module).get("build")
    if not callable(build):
        close = meant("build", [word for word, value in vars(module).items() if callable(value)])
        also = f"; did you mean it by {close}()?" if close else ""
        raise UserError(f"{name} defines no build()", hint=f"a build file has: async def build(ctx){also}")
    found: Build = build
    return found


def _reader(channel: Channel, request: FrontendRequest) -> Callable[[tuple[str, ...]], tuple[str, bytes] | None]:
    """What reads a module of the build file's directory for an import statement, which cannot await."""

    async def call(method: str, message: bytes) -> bytes:
        return channel.call_now(method, message)

    ctx = Context(RemoteGateway(call), request)

    async def first(paths: tuple[str, ...]) -> tuple[str, bytes] | None:
        files = ctx.files(await beside(ctx, *paths))
        for path in paths:
            try:
                return path, await files.read(path)
            except SourceError:
                continue
        return None

    return lambda paths: _at_once(first(paths))


def _at_once(work: Coroutine[Any, Any, _T]) -> _T:
    """The result of something that awaits nothing but what is there at once."""
    try:
        work.send(None)
    except StopIteration as done:
        found: _T = done.value
        return found
    raise RuntimeError("a module cannot be imported from there")
