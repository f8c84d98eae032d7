"""Contexts of a build: the main one, the named ones, and what is beside the build file. As the Dockerfile frontend
finds them, by its code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from buildengine.platform import Platform
from frontends.dockerfile import contexts, ignore, lines, source
from frontends.dockerfile import options as reading
from frontends.dockerfile.contextloading import ContextLoader
from frontends.dockerfile.options import Options
from frontends.python.files import Files
from frontends.python.image import Image
from llb.actions import copy
from llb.state import State, local, scratch

if TYPE_CHECKING:
    from frontends.python.context import Context

_HERE = "dockerfile"  # the client's name for the directory of the build file
_IGNORE = ".dockerignore"


async def main_context(
    ctx: Context,
    *,
    include: Sequence[str],
    exclude: Sequence[str],
    follow_paths: Sequence[str],
    use_ignore_file: bool,
) -> State:
    """See `Context.context`."""
    read = _options(ctx)
    found = await source.find_context(ctx.gateway, ctx.request, read)
    if found.tree is not None:
        if not (include or exclude):
            return found.tree
        return scratch().file(copy(found.tree, "/", "/", contents=True, include=include, exclude=exclude))
    ignored = await _ignored(ctx, read) if use_ignore_file else ()
    return local(
        source.CONTEXT,
        include=include,
        exclude=(*ignored, *exclude),
        follow_paths=follow_paths,
        shared_key_hint=source.CONTEXT,
        session=read.session_of(source.CONTEXT),
        name="[internal] load build context",
    )


async def _ignored(ctx: Context, read: Options) -> tuple[str, ...]:
    """The patterns of `<build file>.dockerignore`, else of `.dockerignore`."""
    own = f"{read.filename}{_IGNORE}"
    files = await build_file(ctx)
    if await files.exists(own):
        return ignore.read(lines.SourceFile(filename=own, data=await files.read(own)))
    return await source.read_ignore_file(
        ctx.gateway,
        source.CONTEXT,
        hint=f"{source.CONTEXT}-{_IGNORE}",
        name=f"[internal] load {_IGNORE}",
        session=read.session_of(source.CONTEXT),
    )


async def named_context(ctx: Context, name: str, platform: Platform | None) -> Image | None:
    """See `Context.named_context`."""
    wanted = platform or ctx.platforms[0]
    read = _options(ctx)
    found = contexts.find(read, name, wanted)
    if found is None:
        return None
    loader = ContextLoader(gateway=ctx.gateway, request=ctx.request, options=read)
    loaded = await loader.load(found, wanted, {"/"})
    return Image(state=loaded.state, document=loaded.image, base_config=loaded.base)


async def build_file(ctx: Context) -> Files:
    """The build file itself, and the ignore file of its own if it has one."""
    if ctx.definition is None:
        name = reading.read(ctx.options).filename
        shown = f"[internal] load build definition from {name}"
        ctx.definition = await beside(ctx, name, f"{name}{_IGNORE}", name=shown)
    return ctx.files(ctx.definition)


async def beside(ctx: Context, *paths: str, name: str = "") -> State:
    """A tree in which these paths of the build file's directory are, if they are there."""
    read = _options(ctx)
    found = await source.find_context(ctx.gateway, ctx.request, read)
    if found.dockerfile is not None:
        return found.dockerfile
    directory = read.dockerfile_local or _HERE
    return local(
        directory,
        follow_paths=[path.strip("/") or "." for path in paths],
        shared_key_hint=directory,
        session=read.session_of(directory),
        differ="none",
        name=name or f"[internal] load {paths[0]}",
    )


def _options(ctx: Context) -> Options:
    return reading.read(ctx.options, ctx.request.session)
