"""`RUN --mount=...` as mounts of LLB. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence

from buildengine.errors import ParseError
from frontends.dockerfile import instructions as ins
from frontends.dockerfile import mounts
from frontends.dockerfile.contextloading import SCRATCH
from frontends.dockerfile.convert.draft import Draft
from frontends.dockerfile.convert.pending import rooted
from frontends.dockerfile.mounts import MountKind, RunMount
from frontends.dockerfile.words import quote
from llb import paths
from llb.actions import mkdir
from llb.mounts import AnyMount, Bind, Cache, Secret, Ssh, Tmpfs
from llb.ops import CacheSharing, Owner
from llb.state import State, scratch

_SECRETS = "/run/secrets/"


def read(draft: Draft, instruction: ins.Run) -> list[RunMount]:
    """The mounts with their variables. Raises ParseError, located."""
    return [_read(draft, instruction, raw) for raw in instruction.mounts]


def _read(draft: Draft, instruction: ins.Run, raw: ins.RawMount) -> RunMount:
    try:
        return mounts.parse(raw, lambda text: draft.expand(text, instruction))
    except ParseError as error:
        line = instruction.line  # a trigger stands where the FROM does: its own columns are not there
        where = line.location if draft.on_build or raw.span is None else line.locate(*raw.span)
        raise error.located(where) from None


def mount(draft: Draft, wanted: RunMount, source: Draft | None) -> AnyMount:
    """What LLB mounts; `source` is the stage that was named with `from`. Raises ParseError."""
    match wanted.kind:
        case MountKind.SECRET:
            return _secret(wanted)
        case MountKind.SSH:
            return _ssh(wanted)
        case MountKind.TMPFS:
            return Tmpfs(target=_target(draft, wanted), size=wanted.size)
    tree, selector = _tree(draft, wanted, source)
    if wanted.kind is MountKind.CACHE:
        return Cache(
            target=_target(draft, wanted),
            id=f"{draft.shared.options.cache_namespace}/{wanted.id or paths.clean(wanted.target)}",
            sharing=wanted.sharing or CacheSharing.SHARED,
            base=tree,
            selector=selector,
            readonly=wanted.readonly,
        )
    # What a command writes to a bind mount is thrown away, so it never becomes a result.
    return Bind(target=_target(draft, wanted), source=tree, selector=selector, readonly=wanted.readonly, output=False)


def _tree(draft: Draft, wanted: RunMount, source: Draft | None) -> tuple[State, str]:
    """What is mounted, and the path in it."""
    selected = rooted(wanted.source)
    if source is not None:
        source.stage.used.add(selected)
        tree = source.state
    elif wanted.kind is MountKind.CACHE or wanted.source_stage == SCRATCH:
        tree = scratch()
    else:
        draft.shared.context_used.add(selected)
        tree = draft.shared.context
    if selected != "/":
        return tree, selected
    if wanted.has_owner:  # a cache belongs to whom its first contents belong
        mode = 0o755 if wanted.mode is None else wanted.mode
        owner = Owner(user=wanted.uid or 0, group=wanted.gid or 0)
        made = mkdir("/cache", mode=mode, owner=owner)
        return tree.file(made, name="[internal] setting cache mount permissions"), "/cache"
    return tree, ""


def _target(draft: Draft, wanted: RunMount) -> str:
    target = wanted.target if wanted.target.startswith("/") else paths.resolve(draft.state.cwd, wanted.target)
    if paths.clean(target) == "/":
        hint = "a mount needs a target=" if not wanted.target else "mount it at a directory below the root"
        raise ParseError(f"invalid mount target {quote(target)}", hint=hint)
    return target


def _secret(wanted: RunMount) -> Secret:
    id = wanted.source or wanted.id or posixpath.basename(wanted.target.rstrip("/"))
    env = id if wanted.env == "" else wanted.env or ""
    target = wanted.target or ("" if env else _SECRETS + posixpath.basename(id.rstrip("/")))
    return Secret(
        id=id,
        target=target,
        env=env,
        uid=wanted.uid or 0,
        gid=wanted.gid or 0,
        mode=0o400 if wanted.mode is None else wanted.mode,
        optional=not wanted.required,
    )


def _ssh(wanted: RunMount) -> Ssh:
    if wanted.source:
        raise ParseError("ssh does not support source", hint="name the agent with id=")
    return Ssh(
        id=wanted.id,  # "" is the default agent
        target=wanted.target,
        uid=wanted.uid or 0,
        gid=wanted.gid or 0,
        mode=0o600 if wanted.mode is None else wanted.mode,
        optional=not wanted.required,
    )


def masked_env(draft: Draft, wanted: Sequence[RunMount]) -> Mapping[str, str]:
    """The environment for the step's name: a variable that will hold a secret shows as `****`."""
    secrets = {m.env: "****" for m in wanted if m.kind is MountKind.SECRET and m.env}
    return draft.env.adding(secrets)
