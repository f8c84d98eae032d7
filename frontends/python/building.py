"""An author's `build`, run on a gateway: from the request to what the engine takes."""

from __future__ import annotations

import inspect
from dataclasses import replace

from buildengine.builder import asks_to_attest
from buildengine.errors import Unsupported, UserError
from buildengine.platform import DEFAULT_PATH, Platform
from frontends.dockerfile import imageconfig
from frontends.gateway import Attestation, FrontendRequest, FrontendResult, Gateway, PlatformResult
from frontends.python.context import Context
from frontends.python.image import Image
from frontends.python.result import Build, Result, warned

_CACHES = {"cache-imports", "cache-from"}
_MULTI_PLATFORM = ("build-arg:BUILDKIT_MULTI_PLATFORM", "multi-platform")


async def run(build: Build, gateway: Gateway, request: FrontendRequest) -> FrontendResult:
    """What `build` makes of the request. Raises what it raises, and UserError for a result that cannot be meant."""
    return await run_in(Context(gateway, request), build)


async def run_in(ctx: Context, build: Build) -> FrontendResult:
    """The same, of a context that is there already."""
    request = ctx.request
    asked = request.options.get("requestid")
    if asked:
        raise Unsupported(f"unsupported request {asked}", request=asked, hint="this frontend builds, and does no more")
    if _CACHES & request.options.keys():
        from frontends.dockerfile import options

        ctx.gateway.import_caches(options.read(request.options, request.session).cache_imports)
    try:
        working = build(ctx)
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is None:  # of the call, of nothing in it
            raise UserError(str(error), hint="write: async def build(ctx)") from None
        raise
    if not inspect.isawaitable(working):
        raise UserError("build() is no coroutine", hint="write: async def build(ctx)")
    result = Result.of(warned(ctx, await working), request.platforms)
    made = [_made(platform, image, ctx) for platform, image in result.images.items()]
    if asks_to_attest(request.options):
        made = await _scanned(ctx, result, made)
    several = result.multi_platform or len(made) > 1 or any(_is_set(ctx, name) for name in _MULTI_PLATFORM)
    return FrontendResult(results=tuple(made), multi_platform=several, metadata=result.metadata)


def _made(platform: Platform, image: Image, ctx: Context) -> PlatformResult:
    image = image.with_labels(ctx.labels) if ctx.labels else image
    definition = image.state.marshal(platform)
    return PlatformResult(
        platform=platform,
        definition=None if definition.is_scratch else definition,
        config=imageconfig.to_json(_completed(image.document, platform)),
        base_config=image.base_config,
        attestations=tuple([
            Attestation(claim=each.claim, definition=each.state.marshal(platform)) for each in image.attested
        ]),
    )  # fmt: skip


def _completed(document: imageconfig.Image, platform: Platform) -> imageconfig.Image:
    """A config that does not say what it is for is for this platform; without a PATH it has the usual one."""
    if document.platform is None:
        document = document.on(platform)
    config = document.config
    if config.variable("PATH") is None and document.os != "windows":
        config = replace(config, env=(f"PATH={DEFAULT_PATH}", *config.env))
    return replace(document, config=replace(config, working_dir=config.working_dir or "/"))


async def _scanned(ctx: Context, result: Result, made: list[PlatformResult]) -> list[PlatformResult]:
    """With what a scanner is to write of each result, if one is asked for."""
    from frontends import attestations
    from frontends.sbom import Targets, open_scanner

    scanner = attestations.scanner(ctx.options)
    if scanner is None:
        return made
    mode = ctx.options.get("image-resolve-mode") or "default"
    scan = await open_scanner(ctx.gateway, scanner, ctx.build_platform, mode=mode)
    scans = [
        scan(str(platform), Targets(core=image.state, ignore_cache=ctx.no_cache), platform)
        for platform, image in result.images.items()
    ]
    return [replace(one, attestations=(*one.attestations, said)) for one, said in zip(made, scans, strict=True)]


def _is_set(ctx: Context, name: str) -> bool:
    return ctx.options.get(name, "").lower() in ("1", "t", "true")
