"""Other frontends, run for a build: what they give is taken as trees with their configs, to go on from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from buildengine.errors import UserError
from frontends.gateway import FrontendResult, PlatformResult
from frontends.python.image import Attested, Image
from frontends.python.result import Result
from llb.actions import mkfile
from llb.definition import Definition
from llb.state import State, scratch

if TYPE_CHECKING:
    from frontends.python.context import Context

_DOCKERFILE = "Dockerfile"
_OWN = ("filename", "target", "platform", "requestid", "frontend.caps", "cmdline", "source")
_OWN_PREFIXES = ("build-arg:", "label:", "attest:")


async def run_frontend(ctx: Context, name: str, options: Mapping[str, str], inputs: Mapping[str, State]) -> Result:
    """See `Context.frontend`."""
    platforms = {"platform": ",".join(map(str, ctx.platforms))}
    marshalled = {key: state.marshal(ctx.platforms[0]) for key, state in inputs.items()}
    return _result(await ctx.gateway.run_frontend(name, platforms | dict(options), marshalled))


async def run_dockerfile(
    ctx: Context, filename: str, *, text: str, target: str, args: Mapping[str, str], context: State | None
) -> Image:
    """See `Context.dockerfile`."""
    if filename and text:
        raise UserError("a Dockerfile is either a file or a text, not both")
    options = {
        name: value for name, value in ctx.options.items() if name not in _OWN and not name.startswith(_OWN_PREFIXES)
    }
    options |= {f"build-arg:{name}": value for name, value in args.items()}
    options["filename"] = filename or _DOCKERFILE
    if target:
        options["target"] = target
    inputs = {} if context is None else {"context": context}
    if text:
        inputs["dockerfile"] = scratch().file(mkfile(f"/{_DOCKERFILE}", text.encode()))
    result = await run_frontend(ctx.on(ctx.platform), "dockerfile.v0", options, inputs)
    return result.image


def _result(given: FrontendResult) -> Result:
    images = {made.platform: _image(made) for made in given.results}
    return Result(images=images, multi_platform=given.multi_platform, metadata=given.metadata)


def _image(made: PlatformResult) -> Image:
    state = _state(made.definition)
    image = Image.from_config(state, made.config) if made.config else Image.of(state)
    attested = tuple(Attested(claim=each.claim, state=_state(each.definition)) for each in made.attestations)
    return Image(state=image.state, document=image.document, base_config=made.base_config, attested=attested)


def _state(definition: Definition | None) -> State:
    return State() if definition is None else State.from_definition(definition)
