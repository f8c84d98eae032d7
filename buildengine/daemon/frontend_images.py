"""gateway.v0: a frontend that is an image. Its process calls LLBBridge on its standard input and output.

    options -> image -> what is run, with which environment -> `image_process` runs it

An image of a language that is built in is not run, unless it is named by its digest or replaced by a named context
(`frontends.catalog.built_in`): so a syntax directive costs no pull, and needs no network.

Facts: BuildKit frontend/gateway/gateway.go (Solve), frontend/dockerui/namedcontext.go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from buildengine import reference
from buildengine.api.daemon import WorkerInfo
from buildengine.daemon.gateway import LocalGateway
from buildengine.daemon.hosted import hosted
from buildengine.daemon.image_process import FrontendProcess
from buildengine.errors import InternalError, Unsupported, UserError
from buildengine.values import dataclass
from frontends import catalog
from frontends.dockerfile import contexts, imageconfig, options
from frontends.dockerfile.contextloading import ContextLoader
from frontends.dockerfile.contexts import NamedContext
from frontends.dockerfile.imageconfig import Config
from frontends.dockerfile.suggest import did_you_mean
from frontends.gateway import Frontend, FrontendRequest, FrontendResult, Gateway, NotAnImage, ResolvedImage
from llb import ops
from llb.definition import Definition
from llb.sources import image

PRODUCT = "pybuild"  # what frontends ask to be updated when they lack something
METADATA = "/run/config/buildkit/metadata/frontend.bin"
_SOURCE, _DEVEL, _DEVEL_PREFIX = "source", "gateway-devel", "gateway-"
_LABEL = "moby.buildkit.frontend."
_INPUTS = f"{_LABEL}inputs"
_TRUE = ("1", "t", "T", "true", "TRUE", "True")  # strconv.ParseBool
_EMPTY = Definition()
# Docker's images of before there was a label for it that take inputs all the same (addCapsForKnownFrontends).
_TAKE_INPUTS = frozenset(
    f"sha256:{digest}"
    for digest in (
        "9ac1c43a60e31dca741a6fe8314130a9cd4c4db0311fbbc636ff992ef60ae76d",
        "080bd74d8778f83e7b670de193362d8c593c8b14f5c8fb919d28ee8feda0d069",
        "60543a9d92b92af5088fb2938fb09b2072684af8384399e153e137fe081f8ab4",
        "de85b2f3a3e8a2f7fe48e8e84a65f6fdd5cd5183afa6412fff9caa6871649c44",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """The frontend's tree and the config of its image. `digest` is that of an image."""

    definition: Definition
    config: Config = Config()
    digest: str = ""


class ImageFrontend:
    """`frontends.gateway.Frontend`. `allowed` are the repositories of which images may be run, () for all."""

    def __init__(
        self, worker: Callable[[], WorkerInfo], find: Callable[[str], Frontend], allowed: Sequence[str]
    ) -> None:
        self._worker = worker
        self._find = find
        self._allowed = allowed

    async def build(self, gateway: Gateway, request: FrontendRequest) -> FrontendResult:
        """Raises BuildError."""
        if not isinstance(gateway, LocalGateway):
            raise InternalError("a frontend's image is run by the engine only")
        source = request.options.get(_SOURCE)
        if source is None:
            raise UserError("no source specified for gateway", hint="name the frontend's image: --opt source=IMAGE")
        self._check_allowed(source)
        if _DEVEL not in request.options:
            ours = catalog.built_in(source)
            if ours is not None and _named(request, source) is None:
                return await self._find(ours).build(gateway, request)
        found = await _find(gateway, request, source)
        _check_capabilities(found, request)
        worker = self._worker()
        meta = ops.Meta(
            args=found.config.entrypoint or ("/run",),
            env=(*found.config.env, *environment(request, worker)),
            cwd=found.config.working_dir or "/",
            remove_mount_stubs_recursive=True,
        )
        isolated = found.config.labels.get(f"{_LABEL}network.none") in _TRUE
        op = ops.ExecOp(
            meta=meta,
            mounts=(ops.Mount(dest="/", input=0),),
            network=ops.NetMode.NONE if isolated else ops.NetMode.SANDBOX,
        )
        root = await gateway.solve(found.definition)
        process = FrontendProcess(
            gateway=gateway,
            op=op,
            root=root,
            platform=request.build_platform,
            name=f"frontend {source}",
            files={METADATA: root.definition.to_bytes()},
            advice=None if found.config.entrypoint else f"{source} has no entrypoint: is it the image of a frontend?",
        )
        return await hosted(gateway, request, self._worker, process.carry)

    def _check_allowed(self, source: str) -> None:
        if not self._allowed:
            return
        allowed = {reference.parse_repository(each).name for each in self._allowed}
        name = reference.parse_repository(source).name
        if name not in allowed:
            hint = f"the configuration allows {', '.join(sorted(allowed))}{did_you_mean(name, allowed)}"
            raise UserError(f"'{source}' is not an allowed gateway source", hint=hint)


async def _find(gateway: LocalGateway, request: FrontendRequest, source: str) -> _Found:
    """The frontend `source`: a named context of that name, an image, or what another frontend makes."""
    if _DEVEL in request.options:
        return await _built(gateway, request, source)
    platform = request.build_platform
    named = _named(request, source)
    if named is not None:
        given = options.read(request.options, request.session)
        loaded = await ContextLoader(gateway=gateway, request=request, options=given).load(named, platform, {"/"})
        return _Found(definition=loaded.state.marshal(platform), config=loaded.image.config)
    asked = ops.SourceOp(identifier=f"docker-image://{reference.normalize(source)}")
    resolved = await gateway.resolve_source(asked, platform=None)
    if not isinstance(resolved, ResolvedImage):
        raise NotAnImage(asked.identifier.partition("://")[2], resolved.source)
    pinned = str(reference.parse(resolved.reference).with_digest(resolved.digest))
    return _Found(
        definition=image(pinned, record_type="frontend").marshal(platform),
        config=imageconfig.parse(resolved.config).config,
        digest=resolved.digest,
    )


def _named(request: FrontendRequest, source: str) -> NamedContext | None:
    """What stands for the image, if the build has named something."""
    if not any(name.startswith("context:") for name in request.options):
        return None
    return contexts.find(options.read(request.options, request.session), source, request.build_platform)


async def _built(gateway: LocalGateway, request: FrontendRequest, frontend: str) -> _Found:
    """A frontend that is being developed: the result of another one."""
    given = {
        name.removeprefix(_DEVEL_PREFIX): value
        for name, value in request.options.items()
        if name.startswith(_DEVEL_PREFIX)
    }
    result = await gateway.run_frontend(frontend, given, request.inputs)
    if result.multi_platform or len(result.results) != 1:
        raise UserError("development gateway didn't return default result", hint="build it for one platform")
    (made,) = result.results
    return _Found(definition=made.definition or _EMPTY, config=imageconfig.parse(made.config).config)


def environment(request: FrontendRequest, worker: WorkerInfo) -> tuple[str, ...]:
    """What a frontend learns of its build. The numbers of the options mean nothing."""
    told = [
        f"BUILDKIT_FRONTEND_OPT_{number}={name}={value}"
        for number, (name, value) in enumerate(sorted(request.options.items()))
    ]
    described = {
        "id": worker.id,
        "labels": dict(worker.labels),
        "platforms": [each.to_json() for each in worker.platforms],
    }
    return (
        *told,
        f"BUILDKIT_SESSION_ID={request.session}",
        f"BUILDKIT_WORKERS={json.dumps([described], separators=(',', ':'))}",
        f"BUILDKIT_EXPORTEDPRODUCT={PRODUCT}",
    )


def _check_capabilities(found: _Found, request: FrontendRequest) -> None:
    """Raises Unsupported for the first that is asked for and that the image has not."""
    has = _names(found.config.labels.get(f"{_LABEL}caps", ""))
    if found.digest in _TAKE_INPUTS:
        has.append(_INPUTS)
    wanted = _names(request.options.get("frontend.caps", "")) + ([_INPUTS] if request.inputs else [])
    for name in wanted:
        if name not in has:
            hint = f"it has {', '.join(has)}" if has else "its image has no label moby.buildkit.frontend.caps"
            raise Unsupported(f"unsupported frontend capability {name}", capability=name, hint=hint)


def _names(text: str) -> list[str]:
    """`name+forward,...` without what is behind the plus."""
    return [name for each in text.split(",") if (name := each.partition("+")[0])]
