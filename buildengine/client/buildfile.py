"""The process of a build file: reads it through the gateway, runs its `build`, says what has come of it, and ends.

The engine starts it in a sandbox (`buildengine.daemon.pythonfrontend`) with a socket as standard input, which carries
the gateway's calls, and this build's request in a file. What it prints is the build's log. Nobody trusts it: what it
does here is for its author, what it may do is the engine's to say.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar

from buildengine import platform as platforms
from buildengine.client.buildmodules import Modules, is_own
from buildengine.client.frames import Channel
from buildengine.client.gateway import RemoteGateway
from buildengine.client.mistakes import Mistakes
from buildengine.errors import SourceError, UserError, meant
from frontends.gateway import FrontendRequest, FrontendResult
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

    async def call_now(method: str, message: bytes) -> bytes:
        return channel.call_now(method, message)

    gateway = RemoteGateway(channel.call)
    mistakes = Mistakes({})
    try:
        request = _at_once(_request(gateway, asked))
        modules = Modules(partial(_read, Context(RemoteGateway(call_now), request)))
        modules.install(request.options.get("filename", ""))
        mistakes = Mistakes(modules.sources, partial(_is_authors, asked["entry_point"]))
        locate_with(mistakes.place)
        ctx = Context(gateway, request)
        build = _at_once(_loaded(ctx, modules, asked))
        mentioned = asked["entry_point"] or any(b"trio" in source for source in modules.sources.values())
        result = _run(build, ctx, channel, uses_trio="trio" in sys.modules or bool(mentioned))
    except BaseException as error:
        mistakes.show(error)
        _at_once(gateway.fail(mistakes.told(error)))
    else:
        _at_once(gateway.finish(result))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # nothing of this process is worth tidying up


def _taken_over() -> socket.socket:
    """Standard input is the engine's; standard output and error are the log."""
    end = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.stdout = os.fdopen(1, "w", buffering=1)  # line by line: in the order in which it is said, beside errors
    return end


def _run(build: Build, ctx: Context, channel: Channel, *, uses_trio: bool) -> FrontendResult:
    """What `build` makes of it, under trio, unless that would make no difference: a tenth of a second goes by until it
    is imported, and a build for one platform whose author has nothing to do with it does one thing after the other."""
    if not uses_trio and len(ctx.platforms) == 1:
        return _at_once(run_in(ctx, build))

    import trio

    async def work() -> FrontendResult:
        async with trio.open_nursery() as nursery:
            await nursery.start(channel.run)
            result = await run_in(ctx, build)
            nursery.cancel_scope.cancel()
        return result

    return trio.run(work)


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
    name = ctx.options["filename"]
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


def _is_authors(entry_point: str, file: str) -> bool:
    """Whether a file of code is the build file's, or of the package with this entry point."""
    package = sys.modules.get(entry_point.partition(":")[0].partition(".")[0])
    first = getattr(package, "__file__", None) or ""
    return is_own(file) or (
        file.startswith(os.path.dirname(first) + "/") if hasattr(package, "__path__") else file == first
    )


def _read(ctx: Context, paths: tuple[str, ...]) -> tuple[str, bytes] | None:
    """The first of these files beside the build file that there is: for an import statement, which cannot await."""

    async def first() -> tuple[str, bytes] | None:
        files = ctx.files(await beside(ctx, *paths))
        for path in paths:
            try:
                return path, await files.read(path)
            except SourceError:
                continue
        return None

    return _at_once(first())


def _at_once(work: Coroutine[Any, Any, _T]) -> _T:
    """The result of something that awaits only our gateway, whose answers are there when it returns."""
    foreign = UserError("the build file awaits what nobody runs here", hint="import trio at the top of the build file")
    try:
        work.send(None)
        work.throw(foreign)  # it is told where it awaits
    except StopIteration as done:
        found: _T = done.value
        return found
    work.close()
    raise foreign
