"""The process of a frontend image: a frontend of ours behind BuildKit's gateway contract, whoever runs the image.

    ENTRYPOINT ["pybuild-frontend"]                       the Dockerfile frontend
    ENTRYPOINT ["pybuild-frontend", "module:build"]       one in Python

Standard input and output are a connection on which we are the client of LLBBridge; what the request is stands in the
environment. What is printed goes to standard error, which is the engine's log.

Facts: BuildKit frontend/gateway/grpcclient/client.go (RunFromEnvironment), frontend/dockerui/config.go (platforms).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping

import trio

from buildengine import platform as platforms
from buildengine.api.connection import open_channel
from buildengine.api.gateway_pb2 import DESCRIPTOR
from buildengine.api.opaque import Opaque
from buildengine.client.gateway import RemoteGateway
from buildengine.client.mistakes import Mistakes
from buildengine.platform import Platform
from frontends import catalog
from frontends.gateway import FrontendRequest, FrontendResult
from frontends.python.building import run
from frontends.python.installed import installed
from llb.annotations import locate_with

DOCKERFILE = "dockerfile.v0"
_OPTION = "BUILDKIT_FRONTEND_OPT_"
_BRIDGE = DESCRIPTOR.services_by_name["LLBBridge"].full_name


def main(name: str, environment: Mapping[str, str]) -> int:
    """The exit status of the process of the frontend `name`: `dockerfile.v0`, or `module:attribute`."""
    stream = _taken_over()
    return trio.run(_work, name, request_of(environment), stream, strict_exception_groups=True)


def _taken_over() -> tuple[int, int]:
    """Standard input and output, for the connection alone. Who prints something prints it to standard error."""
    ends = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1)
    return ends


def request_of(environment: Mapping[str, str]) -> FrontendRequest:
    """What a frontend is asked, but for its inputs. Raises UserError."""
    given = [value for name, value in environment.items() if name.startswith(_OPTION)]
    options = dict(option.partition("=")[::2] for option in given)
    build_platform = _worker_platform(environment.get("BUILDKIT_WORKERS", ""))
    whole = FrontendRequest(
        options={},
        platforms=(build_platform,),
        build_platform=build_platform,
        session=environment.get("BUILDKIT_SESSION_ID", ""),
    )
    return whole.nested(options, {})


def _worker_platform(text: str) -> Platform:
    """Where steps run natively: the first platform of the first worker."""
    try:
        workers = json.loads(text or "[]")
        return platforms.from_json(workers[0]["platforms"][0])
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return platforms.local()


async def _work(name: str, request: FrontendRequest, ends: tuple[int, int]) -> int:
    receiving, sending = map(trio.lowlevel.FdStream, ends)
    async with trio.StapledStream(sending, receiving) as stream, open_channel(stream) as channel:

        async def call(method: str, message: bytes) -> bytes:
            return (await channel.unary(f"/{_BRIDGE}/{method}", Opaque(message), Opaque)).data

        gateway = RemoteGateway(call)
        mistakes = Mistakes({}, _authors(name))
        if name != DOCKERFILE:
            locate_with(mistakes.place)
        try:
            result = await _built(name, gateway, request)
        except Exception as error:
            mistakes.show(error)
            await gateway.fail(mistakes.told(error))
            return 1
        await gateway.finish(result)
        return 0


async def _built(name: str, gateway: RemoteGateway, request: FrontendRequest) -> FrontendResult:
    whole = FrontendRequest(
        options=request.options,
        platforms=request.platforms,
        build_platform=request.build_platform,
        session=request.session,
        inputs=await gateway.inputs(),
    )
    if name == DOCKERFILE:
        return await catalog.find(name).build(gateway, whole)
    return await run(installed(name), gateway, whole)


def _authors(name: str) -> Callable[[str], bool]:
    """Whether a source file is of the frontend's package, or is its module."""
    package = name.partition(":")[0].partition(".")[0]

    def is_authors(file: str) -> bool:
        module = sys.modules.get(package)
        at = (module.__file__ if module is not None else None) or ""
        return file == at or (at.endswith("/__init__.py") and file.startswith(os.path.dirname(at) + "/"))

    return is_authors
