"""Errors of a build as the status of a call, and back.

A status has a code, a message, and details. BuildKit's details are JSON under type URLs of their own
(util/grpcerrors, `typeurl.Register` in solver/errdefs, frontend/gateway/pb and util/stack): its clients find the
vertex, the lines of the build file and the exit code there. Ours stands behind them: it says which class the error
has and what to try, so that a client of ours raises what the daemon raised.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from buildengine import errors
from buildengine.api.rpc import Code, Detail, RpcError
from buildengine.errors import BuildError, ExecFailed, InternalError, Location, SolveError, SourceRange
from llb.pb import ops_pb2

_BUILDKIT = "github.com/moby/buildkit"
VERTEX = f"{_BUILDKIT}/errdefs.Vertex+json"
SOURCE = f"{_BUILDKIT}/errdefs.Source+json"
EXIT = f"{_BUILDKIT}/gatewayapi.ExitMessage+json"
FRONTEND_CAP = f"{_BUILDKIT}/errdefs.FrontendCap+json"
SUBREQUEST = f"{_BUILDKIT}/errdefs.Subrequest+json"
STACK = f"{_BUILDKIT}/stack.Stack+json"
OURS = "pybuild/errors.Error+json"

_CLASSES: Mapping[str, type[BuildError]] = {
    name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, BuildError)
}
_REBUILT = (ExecFailed, SolveError, errors.ContextChanged)  # have constructors of their own
_MOST_FRAMES = 50
_NOT_FOUND = 404  # of HTTP


class Told(BuildError):
    """What somebody else said went wrong: a build's own client, say. The status stays as it was, with its details."""

    def __init__(self, said: RpcError) -> None:
        try:
            known = from_rpc(said)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # details of anybody's making
            known = BuildError(said.message)
        super().__init__(said.message, hint=known.hint, locations=known.locations, vertex=known.vertex)
        self._said = said

    def again(self) -> RpcError:
        """As it was said, and where it was found to be, had nobody said that."""
        said = self._said
        places = () if any(each.type_url == SOURCE for each in said.details) else reversed(self.locations)
        found = [detail(SOURCE, _source(location)) for location in places]
        return RpcError(said.code, self.message, (*said.details, *found))


def to_rpc(error: BaseException, *details: Detail) -> RpcError:
    """The status that tells of `error`; `details` are what only the caller knows."""
    if isinstance(error, Told):
        error = error.again()
    if isinstance(error, RpcError):
        return RpcError(error.code, error.message, (*error.details, *details))
    if not isinstance(error, BuildError):
        error = InternalError(f"{type(error).__name__}: {error}")
    return RpcError(Code(error.grpc_code), _message(error), (*_details(error), *details))


def from_rpc(error: RpcError) -> BuildError:
    """The error that `to_rpc` was given, as far as it was told; of a foreign daemon, one with its message."""
    told = {detail.type_url: detail.value for detail in error.details}
    if OURS in told:
        return _build(json.loads(told[OURS]))
    kind = next((c for c in _CLASSES.values() if c.grpc_code == error.code and c not in _REBUILT), BuildError)
    if EXIT in told:
        kind = BuildError
    locations = tuple(_location(json.loads(d.value)) for d in reversed(error.details) if d.type_url == SOURCE)
    vertex = json.loads(told[VERTEX]).get("digest") if VERTEX in told else None
    return kind(error.message).located(*locations, vertex=vertex)


def _message(error: BuildError) -> str:
    """The words of BuildKit where its users look for them (solver/jobs.go, cache/contenthash; containerd resolver)."""
    first = error.first if isinstance(error, SolveError) else error
    if isinstance(first, errors.RegistryError) and first.status == _NOT_FOUND:
        return f"{error.message}: not found"
    if isinstance(first, errors.MissingPath) and first.path:
        tree = first.vertex or "source"
        path = json.dumps(first.path, ensure_ascii=False)
        return f"failed to compute cache key: failed to calculate checksum of ref {tree}: {path}: not found"
    return error.message


def detail(type_url: str, value: Mapping[str, object]) -> Detail:
    return Detail(type_url=type_url, value=json.dumps(value, separators=(",", ":")).encode())


def _details(error: BuildError) -> Iterator[Detail]:
    first = error.first if isinstance(error, SolveError) else error
    if first.vertex is not None:
        yield detail(VERTEX, {"digest": first.vertex})
    for location in reversed(first.locations):  # in the order in which BuildKit wraps them
        yield detail(SOURCE, _source(location))
    if first.__traceback__ is not None:
        yield detail(STACK, {"frames": _frames(first.__traceback__), "cmdline": sys.argv, "pid": os.getpid()})
    if isinstance(first, ExecFailed):
        code = first.exit_code or 128 + first.signal
        yield detail(EXIT, {"Code": code})
    if isinstance(first, errors.Unsupported) and first.capability:
        yield detail(FRONTEND_CAP, {"name": first.capability})
    if isinstance(first, errors.Unsupported) and first.request:
        yield detail(SUBREQUEST, {"name": first.request})
    yield detail(OURS, _described(error))


# --- what BuildKit reads -----------------------------------------------------------------------------------------


def _source(location: Location) -> dict[str, Any]:
    info: dict[str, Any] = {"filename": location.filename, "data": base64.b64encode(location.text).decode()}
    if location.language:
        info["language"] = location.language
    if location.definition:
        from google.protobuf import json_format  # only a failure needs it

        definition = ops_pb2.Definition.FromString(location.definition)
        info["definition"] = json_format.MessageToDict(definition, preserving_proto_field_name=True)
    return {
        "info": info,
        "ranges": [
            {
                "start": {"line": each.start_line, "character": each.start_column},
                "end": {"line": each.end_line, "character": each.end_column},
            }
            for each in location.ranges
        ],
    }


def _frames(trace: TracebackType) -> list[dict[str, Any]]:
    """Where it was raised first, as in a stack of Go."""
    return [
        {"Name": frame.name, "File": frame.filename, "Line": frame.lineno or 0}
        for frame in reversed(traceback.extract_tb(trace)[-_MOST_FRAMES:])
    ]


def _location(source: Mapping[str, Any]) -> Location:
    info, ranges = source.get("info") or {}, source.get("ranges") or []
    return Location(
        filename=str(info.get("filename", "")),
        text=base64.b64decode(info.get("data", "")),
        language=str(info.get("language", "")),
        ranges=tuple(_range(each.get("start") or {}, each.get("end") or {}) for each in ranges),
    )


def _range(start: Mapping[str, int], end: Mapping[str, int]) -> SourceRange:
    """Raises ValueError, TypeError for what are no numbers."""
    return SourceRange(
        start_line=int(start.get("line", 0)),
        start_column=int(start.get("character", 0)),
        end_line=int(end.get("line", 0)),
        end_column=int(end.get("character", 0)),
    )


# --- what we read ------------------------------------------------------------------------------------------------


def _described(error: BuildError) -> dict[str, Any]:
    described: dict[str, Any] = {"class": type(error).__name__}
    if isinstance(error, SolveError):
        return described | {"failures": [_described(failure) for failure in error.failures]}
    described |= {
        "message": error.message,
        "hint": error.hint,
        "vertex": error.vertex,
        "locations": [_source(location) for location in error.locations],
    }
    if isinstance(error, ExecFailed):
        described |= {
            "argv": list(error.argv),
            "exit_code": error.exit_code,
            "signal": error.signal,
            "output": base64.b64encode(error.output).decode(),
        }
    if isinstance(error, errors.RegistryError):
        described |= {"status": error.status, "code": error.code}
    if isinstance(error, errors.MissingPath):
        described |= {"path": error.path}
    if isinstance(error, errors.Unsupported):
        described |= {"request": error.request, "capability": error.capability}
    return described


def _build(said: Mapping[str, Any]) -> BuildError:
    kind = _CLASSES.get(str(said.get("class")), BuildError)
    if kind is SolveError:
        return SolveError(tuple(_build(failure) for failure in said["failures"]))
    message, hint = str(said.get("message", "")), said.get("hint")
    if kind is ExecFailed:
        made: BuildError = ExecFailed(
            message,
            argv=tuple(said["argv"]),
            exit_code=said["exit_code"],
            signal=said["signal"],
            output=base64.b64decode(said["output"]),
            hint=hint,
        )
    elif kind is errors.RegistryError:
        made = errors.RegistryError(message, status=said["status"], code=said["code"], hint=hint)
    elif kind is errors.MissingPath:
        made = errors.MissingPath(message, path=said["path"], hint=hint)
    elif kind is errors.Unsupported:
        made = errors.Unsupported(message, request=said["request"], capability=said["capability"], hint=hint)
    elif kind is errors.ContextChanged:
        made = errors.ContextError(message, hint=hint)
    else:
        made = kind(message, hint=hint)
    return made.located(*map(_location, said.get("locations", ())), vertex=said.get("vertex"))
