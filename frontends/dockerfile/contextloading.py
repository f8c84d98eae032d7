"""What a named context stands for, loaded through the gateway: an image, a directory, a repository, another build."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace

from buildengine import reference
from buildengine.errors import UserError
from buildengine.platform import Platform
from buildengine.values import dataclass
from frontends.dockerfile import contexts, gitref, imageconfig, source
from frontends.dockerfile.contexts import NamedContext
from frontends.dockerfile.convert.pending import pending_local
from frontends.dockerfile.imageconfig import Image
from frontends.dockerfile.options import Options
from frontends.dockerfile.suggest import did_you_mean
from frontends.gateway import FrontendRequest, Gateway, NotAnImage, ResolvedImage
from llb import giturl
from llb.ops import SourceOp
from llb.sources import http, image, local, oci_layout
from llb.state import State, scratch

SCRATCH = "scratch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A tree to start from, with its image config. `base` is that as it was, for whoever wants to know.

    `pulled`: pulling it is the first step of the stage that starts from it.
    """

    state: State
    image: Image
    platform: Platform
    base: bytes = b""
    pulled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextLoader:
    """Loads the named contexts of one request."""

    gateway: Gateway
    request: FrontendRequest
    options: Options

    async def load(self, context: NamedContext, platform: Platform, used: set[str]) -> Loaded:
        """`used` are the paths of it that anyone takes, which may still grow; what it is not in is not transferred.

        Raises UserError, SourceError.
        """
        match context.scheme:
            case "docker-image":
                return await self._image(context, platform, used)
            case "git" | "http" | "https" | "ssh":
                state = _remote(context)
            case "local":
                state = await self._local(context, used)
            case "input":
                return self._input(context, platform)
            case "oci-layout":
                return await self._layout(context, platform)
            case scheme:
                known = ("docker-image", "git", "https", "local", "input", "oci-layout")
                raise UserError(
                    f"unsupported context source {scheme} for {context.label}{did_you_mean(scheme, known)}",
                    hint=f"one of {', '.join(known)}",
                )
        return Loaded(state=state, image=Image(), platform=platform)

    async def _image(self, context: NamedContext, platform: Platform, used: set[str]) -> Loaded:
        """What is no image by now, because of a source policy, is the context that it has become."""
        if context.rest == SCRATCH:
            return Loaded(state=scratch(), image=Image(), platform=platform)
        name = reference.normalize(context.rest)
        try:
            resolved = await self.gateway.resolve_image(
                name,
                platform=platform,
                mode=self.options.resolve_mode,
                name=f"[context {context.label}] load metadata for {name}",
            )
        except NotAnImage as error:
            return await self.load(replace(context, value=error.source.identifier), platform, used)
        name_pinned = pinned(context.rest, resolved)
        state = image(name_pinned, platform=platform, name=f"[context {context.label}] {context.rest}")
        return Loaded(
            state=state.with_image_config(resolved.config),
            image=imageconfig.parse(resolved.config),
            platform=platform,
            base=resolved.config,
        )

    async def _layout(self, context: NamedContext, platform: Platform) -> Loaded:
        """An image of a layout of the client's, called by the name of the context: what the store is called may be
        made up."""
        written, at, digest = context.rest.partition("@")
        places, slash, last = written.rpartition("/")
        store = places + slash + last.partition(":")[0]  # a tag is for who reads it: buildx puts one there
        if not at:
            raise UserError(f'oci-layout reference "{context.rest}" has no digest', hint="write NAME@sha256:...")
        name = contexts.with_digest(context.name, digest)
        resolved = await self.gateway.resolve_source(
            SourceOp(identifier=f"oci-layout://{name}", attrs={"oci.store": store}),
            platform=platform,
            name=f"[context {context.label}] load metadata for {name}",
        )
        assert isinstance(resolved, ResolvedImage)
        state = oci_layout(name, store=store, platform=platform, name=f"[context {context.label}] OCI load from client")
        return Loaded(
            state=state.with_image_config(resolved.config),
            image=imageconfig.parse(resolved.config),
            platform=platform,
            base=resolved.config,
        )

    async def _local(self, context: NamedContext, used: set[str]) -> State:
        name = context.rest
        session = self.options.session_of(name)
        hint = f"context:{context.label}"
        excluded = await source.read_ignore_file(
            self.gateway,
            name,
            hint=f"{hint}-.dockerignore",
            name=f"[context {context.label}] load .dockerignore",
            session=session,
        )

        def make(follow: tuple[str, ...]) -> State:
            return local(
                name,
                exclude=excluded,
                follow_paths=follow,
                shared_key_hint=hint,
                session=session,
                name=f"[context {context.label}] load from client",
            )

        return pending_local(make, used)

    def _input(self, context: NamedContext, platform: Platform) -> Loaded:
        """The result of another build."""
        definition = self.request.inputs.get(context.rest)
        if definition is None:
            raise UserError(f"invalid input {context.rest} for {context.label}")
        state = State.from_definition(definition)
        config = _input_config(self.options.input_metadata, context.rest)
        if config is None:
            return Loaded(state=state, image=Image(), platform=platform)
        state = state.with_image_config(config)
        return Loaded(state=state, image=imageconfig.parse(config), platform=platform, base=config)


def pinned(written: str, resolved: ResolvedImage) -> str:
    """As it was written, with the digest; a name that a source policy has put in its place is not shortened."""
    is_same = reference.normalize(written) == resolved.reference
    return contexts.with_digest(written if is_same else resolved.reference, resolved.digest)


def _input_config(metadata: Mapping[str, str], name: str) -> bytes | None:
    if name not in metadata:
        return None
    try:
        config = json.loads(metadata[name]).get("containerimage.config")
        return None if config is None else base64.b64decode(config, validate=True)
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise UserError(f"failed to parse input metadata of {name}") from None


def _remote(context: NamedContext) -> State:
    repository = gitref.parse(context.value)
    if repository is not None:
        return source.git_context(repository, f"[internal] load git source {giturl.redacted(context.value)}")
    if context.scheme in ("git", "ssh"):
        raise UserError(f"invalid git context {context.value}", hint="write https://host/path.git or git@host:path.git")
    return http(context.value, name=f"[context {context.label}] {context.value}")
