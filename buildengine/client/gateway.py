"""`frontends.gateway.Gateway` for a frontend that is not in the engine: calls of BuildKit's LLBBridge, whatever carries
them.

A build file has a socketpair for them (`client.frames`), a frontend image the gRPC of its standard streams. So the same
frontend runs in the engine, beside it, and under BuildKit itself. Nothing here knows a transport: `Call` takes a
method's name and a message's bytes.

Facts: BuildKit frontend/gateway/grpcclient/client.go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, TypeVar

from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from buildengine.api import gateway_pb2 as pb
from buildengine.api.bridge import Attestation, Ref
from buildengine.api.gatewaymessages import definition as heard_definition
from buildengine.api.gatewaymessages import definition_message, file_info, result_message, returned, warning_message
from buildengine.api.platformmessages import platform_message
from buildengine.api.returned import heard, told
from buildengine.api.rpc import RpcError
from buildengine.api.sourcemeta import ask_details, resolved, source_message
from buildengine.api.status import OURS, from_rpc, to_rpc
from buildengine.api.statusbytes import encode
from buildengine.builder import CacheEntry
from buildengine.errors import BuildError, SourceError, UserError
from buildengine.events import WarningEvent
from buildengine.platform import Platform
from frontends.gateway import (
    USUAL_DETAILS,
    Details,
    FileInfo,
    FrontendResult,
    ResolvedImage,
    ResolvedSource,
    image_of,
)
from llb.definition import Definition
from llb.ops import SourceOp

if TYPE_CHECKING:  # few frontends have any
    from buildengine.sourcepolicy import Policy

_CHUNK = 4 << 20  # bytes of a file in one answer
_NO_INPUTS: Mapping[str, Definition] = MappingProxyType({})
_ABSENT = ("no such file or directory", "not found")  # how BuildKit says it; ours says it with a class

_Answer = TypeVar("_Answer", bound=Message)


class Call(Protocol):
    """One call of LLBBridge: `method` is `Solve`, `ReadFile`, ... Raises RpcError."""

    def __call__(self, method: str, request: bytes, /) -> Awaitable[bytes]: ...


class RemoteReference:
    """A reference of the engine's. "" is the empty tree, of which there is nothing to read."""

    def __init__(self, gateway: RemoteGateway, id: str, definition: Definition) -> None:
        self._gateway = gateway
        self.id = id
        self.definition = definition

    async def evaluate(self) -> None:
        if self.id:
            await self._gateway.ask("Evaluate", pb.EvaluateRequest(Ref=self.id), pb.EvaluateResponse)

    async def read_file(self, path: str, *, limit: int = 16 << 20, offset: int = 0, length: int | None = None) -> bytes:
        wanted = limit + 1 if length is None else min(length, limit + 1)
        found = bytearray()
        while len(found) < wanted:
            part = pb.FileRange(Offset=offset + len(found), Length=min(_CHUNK, wanted - len(found)))
            request = pb.ReadFileRequest(Ref=self._read(path), FilePath=path, Range=part)
            with _reading():
                data = (await self._gateway.ask("ReadFile", request, pb.ReadFileResponse)).Data
            found += data
            if len(data) < part.Length:
                break
        if len(found) > limit:
            raise UserError(f"{path} is longer than {limit} bytes")
        return bytes(found)

    async def read_dir(self, path: str, *, include: str = "") -> Sequence[FileInfo]:
        request = pb.ReadDirRequest(Ref=self._read(path), DirPath=path, IncludePattern=include)
        with _reading():
            answer = await self._gateway.ask("ReadDir", request, pb.ReadDirResponse)
        return tuple(map(file_info, answer.entries))

    async def stat_file(self, path: str) -> FileInfo:
        request = pb.StatFileRequest(Ref=self._read(path), Path=path)
        with _reading():
            return file_info((await self._gateway.ask("StatFile", request, pb.StatFileResponse)).stat)

    def _read(self, path: str) -> str:
        if not self.id:
            raise SourceError(f"{path}: no such file or directory", hint="the tree is empty")
        return self.id


class RemoteGateway:
    """`frontends.gateway.Gateway`. `finish` and `fail` are the frontend's last words."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._caches: list[CacheEntry] = []
        self._warnings: list[WarningEvent] = []

    async def ask(self, method: str, request: Message, answer: type[_Answer]) -> _Answer:
        """Raises BuildError. What has been warned of meanwhile is told first."""
        await self._tell_warnings()
        try:
            return answer.FromString(await self._call(method, request.SerializeToString()))
        except RpcError as error:
            raise from_rpc(error) from error

    async def solve(self, definition: Definition, policies: Sequence[Policy] = ()) -> RemoteReference:
        if definition.is_scratch:
            return RemoteReference(self, "", definition)
        request = pb.SolveRequest(Definition=definition_message(definition))
        if policies:
            from buildengine.api.policies import policy_message

            request.SourcePolicies.extend(map(policy_message, policies))
        result = await self._solve(request)
        ref = result.ref
        settled = heard_definition(getattr(ref, "def")) if ref.HasField("def") else definition
        return RemoteReference(self, ref.id, settled)

    async def _solve(self, request: pb.SolveRequest) -> pb.Result:
        request.allowResultReturn = request.allowResultArrayRef = True
        request.CacheImports.extend(pb.CacheOptionsEntry(Type=each.type, Attrs=each.attrs) for each in self._caches)
        return (await self.ask("Solve", request, pb.SolveResponse)).result

    async def resolve_image(
        self, reference: str, *, platform: Platform, mode: str = "default", name: str = ""
    ) -> ResolvedImage:
        return await image_of(self, reference, platform=platform, mode=mode, name=name)

    async def resolve_source(
        self,
        source: SourceOp,
        *,
        platform: Platform | None,
        mode: str = "default",
        name: str = "",
        policies: Sequence[Policy] = (),
        details: Details = USUAL_DETAILS,
    ) -> ResolvedSource:
        request = pb.ResolveSourceMetaRequest(
            Source=source_message(source),
            Platform=platform_message(platform) if platform else None,
            LogName=name,
            ResolveMode=mode,
        )
        ask_details(request, details)
        if policies:
            from buildengine.api.policies import policy_message

            request.SourcePolicies.extend(map(policy_message, policies))
        return resolved(await self.ask("ResolveSourceMeta", request, pb.ResolveSourceMetaResponse))

    async def run_frontend(
        self, name: str, options: Mapping[str, str], inputs: Mapping[str, Definition] = _NO_INPUTS
    ) -> FrontendResult:
        request = pb.SolveRequest(
            Frontend=name,
            FrontendOpt=options,
            FrontendInputs={key: definition_message(each) for key, each in inputs.items()},
        )
        message = await self._solve(request)
        definitions = {ref.id: heard_definition(getattr(ref, "def")) for ref in _refs(message) if ref.HasField("def")}
        return heard(returned(message), definitions)

    async def inputs(self) -> Mapping[str, Definition]:
        answer = await self.ask("Inputs", pb.InputsRequest(), pb.InputsResponse)
        return {name: heard_definition(each) for name, each in answer.Definitions.items()}

    def import_caches(self, caches: Sequence[CacheEntry]) -> None:
        self._caches.extend(caches)

    def warn(self, warning: WarningEvent) -> None:
        self._warnings.append(warning)

    # --- last words ------------------------------------------------------------------------------------------

    async def finish(self, result: FrontendResult) -> None:
        """This is the result. Raises BuildError for one that the engine does not accept."""
        refs = [await self._given(made.definition) for made in result.results]
        attested = {
            made.id: tuple([
                Attestation(claim=each.claim, ref=await self._given(each.definition)) for each in made.attestations
            ])
            for made in result.results
            if made.attestations
        }  # fmt: skip
        message = result_message(told(result, refs, attested), refs=True)
        await self.ask("Return", pb.ReturnRequest(result=message), pb.ReturnResponse)

    async def _given(self, value: Definition | None) -> Ref:
        return Ref(id=(await self.solve(value)).id) if value is not None else Ref()

    async def fail(self, error: BaseException) -> None:
        """There is none, and this is why."""
        status = Status.FromString(encode(to_rpc(error)))
        await self.ask("Return", pb.ReturnRequest(error=status), pb.ReturnResponse)

    async def _tell_warnings(self) -> None:
        warnings, self._warnings = self._warnings, []
        for each in warnings:
            await self._call("Warn", warning_message(each).SerializeToString())


def _refs(message: pb.Result) -> Iterator[pb.Ref]:
    yield from message.refs.refs.values() if message.HasField("refs") else (message.ref,)
    for said in message.attestations.values():
        yield from (each.ref for each in said.attestation if each.HasField("ref"))


@contextmanager
def _reading() -> Iterator[None]:
    """A file that is not there is a SourceError, also where the engine has no classes to say so."""
    try:
        yield
    except BuildError as error:
        cause = error.__cause__
        is_foreign = isinstance(cause, RpcError) and all(each.type_url != OURS for each in cause.details)
        if is_foreign and any(words in error.message for words in _ABSENT):
            raise SourceError(error.message) from error
        raise
