"""What an operation says, name by name, as people write it: the part of a step's key that is no input.

What is no part of the key (`worker.ops`: proxies, addresses of extra hosts, cgroups, the session of a directory) is no
fact either. A value that is left at its default has no fact.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from blake3 import blake3

from buildengine.builder import SESSION_HOST
from buildengine.digest import Digest
from llb import ops
from worker.explain.secrecy import HIDDEN, kept, shown
from worker.explain.step import Facts

COMMAND, ENV, MOUNT, PLATFORM, EXCLUDE = "command", "env ", "mount ", "platform", "exclude"
SHELL, HIDDEN_PART = "shell", "a part of the command that is not shown"
_LONGEST = 20_000  # characters of a text that is kept; of a longer one a digest
_ROOT = "/"
_KINDS = {
    "docker-image": "image",
    "oci-layout": "image",
    "local": "local",
    "git": "git",
    "http": "http",
    "https": "http",
}
_UNKEYED = frozenset(("local.session", "local.unique", "local.sharedkeyhint", "local.differ", "git.fullurl"))
_IMAGE_UNKEYED = frozenset(("image.resolvemode", "image.recordtype"))


def kind(op: ops.Op) -> str:
    payload = op.payload
    if isinstance(payload, ops.SourceOp):
        return _KINDS.get(payload.identifier.partition("://")[0], "source")
    return type(payload).__name__.removesuffix("Op").lower()


def facts(op: ops.Op) -> Facts:
    """All of them, in an order that does not depend on the operation's."""
    return dict(sorted(_facts(op)))


def pinned(op: ops.Op) -> str:
    """The digest in an image's reference; "" where there is none."""
    payload = op.payload
    if not isinstance(payload, ops.SourceOp) or kind(op) != "image":
        return ""
    return payload.identifier.partition("@")[2]


def _facts(op: ops.Op) -> Iterator[tuple[str, str]]:
    match op.payload:
        case ops.ExecOp() as payload:
            yield from _exec(payload)
            yield from _platform(op)
        case ops.FileOp() as payload:
            several = len(payload.actions) > 1
            for number, one in enumerate(payload.actions):
                prefix = f"{number} " if several else ""
                yield from ((prefix + name, value) for name, value in _action(one.action))
        case ops.SourceOp() as payload:
            yield from _source(payload)
            yield from _platform(op) if kind(op) == "image" else ()
        case ops.MergeOp() | ops.DiffOp() as payload:
            yield "inputs", str(payload)
        case ops.BuildOp() as payload:
            yield "definition", _long(payload.definition)


def _platform(op: ops.Op) -> Iterator[tuple[str, str]]:
    if op.platform is not None:
        yield PLATFORM, str(op.platform)


def _exec(op: ops.ExecOp) -> Iterator[tuple[str, str]]:
    meta = op.meta
    command = meta.args[-1] if meta.args[1:2] == ("-c",) and len(meta.args) == 3 else ""
    if command:
        yield SHELL, " ".join(meta.args[:-1])
    yield COMMAND, _text(command or " ".join(meta.args))
    exact = json.dumps(meta.args).encode("utf-8", "surrogateescape")
    if not command:
        yield "words of the command", _long(exact)
    if shown(command) != command:
        yield HIDDEN_PART, HIDDEN + _long(exact)
    for entry in meta.env:
        name, _, value = entry.partition("=")
        yield ENV + name, _text(kept(name, value))
    yield from _given(
        {
            "working directory": meta.cwd,
            "user": meta.user,
            "host name": meta.hostname,
            "extra hosts": " ".join(sorted(each.host for each in meta.extra_hosts)),
            "limits": " ".join(f"{each.name}={each.soft}:{each.hard}" for each in meta.ulimits),
            "exit codes": " ".join(map(str, meta.valid_exit_codes)),
            "mount stubs": "removed" if meta.remove_mount_stubs_recursive else "",
            "network": ("default", "host", "none")[op.network],
            "security": "insecure" if op.security is ops.SecurityMode.INSECURE else "",
            "devices": " ".join(each.name + (" optional" if each.optional else "") for each in op.cdi_devices),
        }
    )
    for secret in op.secret_env:
        yield MOUNT + f"${secret.name}", f"secret id={secret.id}" + ("" if secret.optional else ",required")
    for mount in op.mounts:
        if mount.dest != _ROOT:
            yield MOUNT + mount.dest, _mount(mount)


def _mount(mount: ops.Mount) -> str:
    """Its options, as in `RUN --mount`."""
    options = [mount.type.name.lower()]
    named = mount.secret or mount.ssh
    if named is not None:
        options += [f"id={named.id}", f"uid={named.uid}", f"gid={named.gid}", f"mode={named.mode:04o}"]
        options += [] if named.optional else ["required"]
    cache = mount.cache
    if cache is not None and not (cache.sharing is ops.CacheSharing.SHARED and cache.id.endswith(mount.dest)):
        options += [f"id={cache.id}", f"sharing={cache.sharing.name.lower()}"]
    if mount.tmpfs_size:
        options.append(f"size={mount.tmpfs_size}")
    if mount.readonly:
        options.append("ro")
    return ",".join(options)


def _action(action: ops.Action) -> Iterator[tuple[str, str]]:
    match action:
        case ops.CopyAction():
            yield "source", action.src
            yield "destination", action.dest
            yield from _given(
                {
                    "owner": _owner(action.owner),
                    "mode": action.mode_str or (f"{action.mode:04o}" if action.mode != -1 else ""),
                    "times": "" if action.timestamp == -1 else str(action.timestamp),
                    "included": " ".join(action.include_patterns),
                    "excluded": " ".join(action.exclude_patterns),
                    "unpacking": "on" if action.attempt_unpack else "",
                    "other options": _flags(action),
                }
            )
        case ops.MkFile():
            yield "file", action.path
            yield "content", _text(action.data.decode(errors="surrogateescape"))
            yield from _given({"owner": _owner(action.owner), "mode": f"{action.mode:04o}"})
        case ops.MkDir():
            yield "directory", action.path
            yield from _given({"owner": _owner(action.owner), "mode": f"{action.mode:04o}"})
        case ops.Remove():
            yield "removed", action.path
        case ops.Symlink():
            yield "link", f"{action.newpath} -> {action.oldpath}"
            yield from _given({"owner": _owner(action.owner)})


def _flags(action: ops.CopyAction) -> str:
    names = (
        "follow_symlink", "dir_copy_contents", "create_dest_path", "allow_wildcard", "allow_empty_wildcard",
        "always_replace_existing_dest_paths",
    )  # fmt: skip
    return " ".join(name for name in names if getattr(action, name))


def _owner(owner: ops.Owner | None) -> str:
    if owner is None:
        return ""
    ids = [each.name if isinstance(each, ops.NamedUser) else each for each in (owner.user, owner.group)]
    return ":".join("" if each is None else str(each) for each in ids)


def _source(op: ops.SourceOp) -> Iterator[tuple[str, str]]:
    scheme, _, rest = op.identifier.partition("://")
    if scheme in ("docker-image", "oci-layout"):
        yield "image", rest.partition("@")[0]
        left_out = _UNKEYED | _IMAGE_UNKEYED
    else:
        is_upload = rest.startswith(SESSION_HOST + "/")  # what follows is another one in every build
        yield "address", shown(op.identifier) if not is_upload else SESSION_HOST
        left_out = _UNKEYED
    for name, value in op.attrs.items():
        if name not in left_out:
            key = EXCLUDE if name == "local.excludepatterns" else name.partition(".")[2]
            yield key, _text(kept(name.removeprefix("http.header."), value) if "header." in name else shown(value))


def _given(values: dict[str, str]) -> Iterator[tuple[str, str]]:
    return ((name, value) for name, value in values.items() if value)


def _text(text: str) -> str:
    text = shown(text)
    return text if len(text) <= _LONGEST else _long(text.encode("utf-8", "surrogateescape"))


def _long(data: bytes) -> str:
    return str(Digest.of_hex(blake3(data).hexdigest(), "blake3"))
