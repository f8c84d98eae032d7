"""A client that decides itself about each source of its build.

Facts: BuildKit solver/llbsolver/policy.go, sourcepolicy/policysession.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from buildengine.api import policy_pb2
from buildengine.api.gateway_pb2 import ResolveSourceMetaRequest, ResolveSourceMetaResponse
from buildengine.api.platformmessages import platform_message, platform_of
from buildengine.api.policysession_pb2 import CheckPolicyRequest, CheckPolicyResponse
from buildengine.api.rpc import RpcError
from buildengine.api.sessions import ClientSession
from buildengine.api.sourcemeta import answer, details_of, source_message, source_of
from buildengine.errors import UserError
from buildengine.platform import Platform
from buildengine.sourcepolicy import SourceDenied
from frontends.gateway import Details, ResolvedSource
from llb.ops import SourceOp

_CHECK = "/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy"
_QUESTIONS = 10

Resolve = Callable[[SourceOp, Platform | None, str, str, Details], Awaitable[ResolvedSource]]
"""What a source is now: for which platform, with which resolve mode, what progress calls it, what is wanted of it."""


class Verifier:
    """The client that `find` gives is asked about every source. It may ask back what the source is."""

    def __init__(self, find: Callable[[], Awaitable[ClientSession]]) -> None:
        self._find = find

    async def check(self, source: SourceOp, platform: Platform | None, resolve: Resolve) -> None:
        """Raises SourceDenied; UserError for an answer that cannot be meant."""
        session = await self._find()
        request = CheckPolicyRequest(
            Platform=platform_message(platform) if platform else None,
            Source=ResolveSourceMetaResponse(Source=source_message(source)),
        )
        for _ in range(_QUESTIONS):
            try:
                response = await session.channel.unary(_CHECK, request, CheckPolicyResponse)
            except RpcError as error:
                raise UserError(f"the client does not decide about {source.identifier}: {error.message}") from error
            if response.HasField("request"):
                request.Source.CopyFrom(await _resolved(source, response.request, resolve))
                continue
            return _decide(source, response)
        raise UserError("too many policy requests")


async def _resolved(source: SourceOp, request: ResolveSourceMetaRequest, resolve: Resolve) -> ResolveSourceMetaResponse:
    asked = source_of(request.Source)
    if asked.identifier != source.identifier:
        raise UserError(f'policy requested different source identifier: "{asked.identifier}" != "{source.identifier}"')
    if dict(asked.attrs) != dict(source.attrs):
        raise UserError("policy requested different source attrs")
    platform = platform_of(request.Platform) if request.HasField("Platform") else None
    return answer(
        await resolve(source, platform, request.ResolveMode or "default", request.LogName, details_of(request))
    )


def _decide(source: SourceOp, response: CheckPolicyResponse) -> None:
    if not response.HasField("decision"):
        raise UserError("no decision in policy response")
    action = response.decision.action
    if action == policy_pb2.CONVERT:
        raise UserError("convert action not yet supported")
    if action != policy_pb2.ALLOW:
        name = policy_pb2.PolicyAction.Name(action)
        said = "; ".join(each.message for each in response.decision.denyMessages)
        raise SourceDenied(f'source "{source.identifier}" not allowed by policy: action {name}', hint=said or None)
