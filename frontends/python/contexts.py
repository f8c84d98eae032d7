"""Contexts of a build: the main one, the named ones, and what is beside the build file. As the Dockerfile frontend
finds them, by its code, which is imported when something else than a directory of the client's is meant."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import TYPE_CHECKING

from buildengine.errors import SourceError
from buildengine.platform import Platform
from frontends.python.files import Files
from frontends.python.image import Image
from llb.actions import copy
from llb.sources import local
from llb.state import State, scratch

if TYPE_CHECKING:
    from frontends.dockerfile.options import Options
    from frontends.dockerfile.source import Context as Found
    from frontends.python.context import Context

_CONTEXT, _HERE = "context", "dockerfile"  # the client's names for its directories
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
    include = _clean(include)
    found = await _elsewhere(ctx)
    if found is not None and found.tree is not None:
        if not (include or exclude):
            return found.tree
        return scratch().file(copy(found.tree, "/", "/", contents=True, include=include, exclude=exclude))
    ignored = await _ignored(ctx) if use_ignore_file else ()
    return local(
        _CONTEXT,
        include=include,
        exclude=(*ignored, *exclude),
        follow_paths=follow_paths,
        shared_key_hint=_CONTEXT,
        session=_session_of(ctx, _CONTEXT),
        name="[internal] load build context",
    )


def _clean(include: Sequence[str]) -> Sequence[str]:
    """As patterns are compared: without `./` and `/` around them. `.` is everything."""
    cleaned = [posixpath.normpath(pattern.strip("/") or ".") for pattern in include]
    return () if "." in cleaned else cleaned


async def _ignored(ctx: Context) -> tuple[str, ...]:
    """The patterns of `<build file>.dockerignore`, else of `.dockerignore`."""
    own = f"{_filename(ctx)}{_IGNORE}"
    shared = local(
        _CONTEXT,
        follow_paths=[_IGNORE],
        shared_key_hint=f"{_CONTEXT}-{_IGNORE}",
        session=_session_of(ctx, _CONTEXT),
        differ="none",
        name=f"[internal] load {_IGNORE}",
    )
    for files, name in ((await build_file(ctx), own), (ctx.files(shared), _IGNORE)):
        try:
            data = await files.read(name)
        except SourceError:
            continue
        from frontends.dockerfile import ignore, lines  # few directories have any

        return ignore.read(lines.SourceFile(filename=name, data=data))
    return ()


async def named_context(ctx: Context, name: str, platform: Platform | None) -> Image | None:
    """See `Context.named_context`."""
    from frontends.dockerfile import contexts
    from frontends.dockerfile.contextloading import ContextLoader

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
        name = _filename(ctx)
        shown = f"[internal] load build definition from {name}"
        ctx.definition = await beside(ctx, name, f"{name}{_IGNORE}", name=shown)
    return ctx.files(ctx.definition)


async def beside(ctx: Context, *paths: str, name: str = "") -> State:
    """A tree in which these paths of the build file's directory are, if they are there."""
    found = await _elsewhere(ctx)
    if found is not None and found.dockerfile is not None:
        return found.dockerfile
    directory = ctx.options.get("dockerfilekey") or _HERE
    return local(
        directory,
        follow_paths=[path.strip("/") or "." for path in paths],
        shared_key_hint=directory,
        session=_session_of(ctx, directory),
        differ="none",
        name=name or f"[internal] load {paths[0]}",
    )


async def _elsewhere(ctx: Context) -> Found | None:
    """The context, and where its build file is, unless both are directories of the client's."""
    address = ctx.options.get(ctx.options.get("contextkey", _CONTEXT))
    if not (address or ctx.request.inputs or ctx.options.get("contextsubdir")):
        return None
    from frontends.dockerfile import source

    return await source.find_context(ctx.gateway, ctx.request, _options(ctx))


def _options(ctx: Context) -> Options:
    from frontends.dockerfile import options

    return options.read(ctx.options, ctx.request.session)


def _filename(ctx: Context) -> str:
    return ctx.options.get("filename") or "build.py"


def _session_of(ctx: Context, directory: str) -> str:
    """The session that has this directory of the client's."""
    return ctx.options.get(f"local-sessionid:{directory}", ctx.request.session)
