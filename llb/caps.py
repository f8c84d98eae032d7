"""Capabilities: what an operation needs to be understood by whoever runs it, by BuildKit's ids.

A client writes them beside each operation, an older engine refuses ids that it does not know, and a client asks
for the list before it uses a feature. The ids are those of BuildKit v0.26 (solver/pb/caps.go).
"""

from __future__ import annotations

from collections.abc import Iterable

from llb.ops import (
    BuildOp,
    ContentCache,
    CopyAction,
    DiffOp,
    ExecOp,
    FileOp,
    MergeOp,
    Meta,
    Mount,
    MountType,
    NetMode,
    Op,
    OpMetadata,
    Payload,
    SecurityMode,
    SourceOp,
    Symlink,
)

KNOWN = frozenset([
    "source.image", "source.image.resolvemode", "source.image.layerlimit", "source.image.checksum",
    "source.local", "source.local.unique", "source.local.sessionid", "source.local.includepatterns",
    "source.local.followpaths", "source.local.excludepatterns", "source.local.sharedkeyhint", "source.local.differ",
    "source.local.metadatatransfer",
    "source.git", "source.git.keepgitdir", "source.git.fullurl", "source.git.httpauth", "source.git.knownsshhosts",
    "source.git.mountsshsock", "source.git.subdir", "source.git.checksum", "source.git.skipsubmodules",
    "source.git.signatureverify",
    "source.http", "source.http.auth", "source.http.checksum", "source.http.perm", "soruce.http.uidgid",
    "source.http.header",
    "source.ocilayout", "source.buildop.llbfilename",
    "exec.meta.base", "exec.meta.cgroup.parent", "exec.meta.network", "exec.meta.proxyenv", "exec.meta.security",
    "exec.meta.security.devices.v1", "exec.meta.setsdefaultpath", "exec.meta.ulimit", "exec.meta.cdi",
    "exec.meta.removemountstubs.recursive",
    "exec.mount.bind", "exec.mount.bind.readwrite-nooutput", "exec.mount.cache", "exec.mount.cache.sharing",
    "exec.mount.selector", "exec.mount.tmpfs", "exec.mount.tmpfs.size", "exec.mount.secret", "exec.mount.ssh",
    "exec.mount.cache.content", "exec.cgroup", "exec.secretenv", "exec.validexitcode",
    "file.base", "file.rm.wildcard", "file.rm.nofollowsymlink", "file.copy.includeexcludepatterns",
    "file.copy.requiredpaths", "file.copy.alwaysreplaceexistingdestpaths", "file.copy.modestring",
    "file.symlink.create",
    "constraints", "platform", "meta.ignorecache", "meta.description", "meta.exportcache", "cache.gha", "cache.s3",
    "cache.azblob", "mergeop", "diffop", "exporter.image.annotations", "exporter.image.attestations",
    "exporter.sourcedateepoch", "exporter.multiple", "exporter.session",
    "source.policy", "source.policy.session",
    "gc.freespacefilter", "history.filter",
])  # fmt: skip  # (`soruce` is how that id is spelled on the wire)

_SOURCES = {
    "docker-image": "source.image",
    "oci-layout": "source.ocilayout",
    "local": "source.local",
    "git": "source.git",
    "http": "source.http",
    "https": "source.http",
}

_ATTRIBUTES = {
    "image.layerlimit": "source.image.layerlimit",
    "image.checksum": "source.image.checksum",
    "local.session": "source.local.sessionid",
    "local.unique": "source.local.unique",
    "local.includepattern": "source.local.includepatterns",
    "local.excludepatterns": "source.local.excludepatterns",
    "local.followpaths": "source.local.followpaths",
    "local.sharedkeyhint": "source.local.sharedkeyhint",
    "local.metadatatransfer": "source.local.metadatatransfer",
    "git.keepgitdir": "source.git.keepgitdir",
    "git.fullurl": "source.git.fullurl",
    "git.knownsshhosts": "source.git.knownsshhosts",
    "git.mountsshsock": "source.git.mountsshsock",
    "git.checksum": "source.git.checksum",
    "git.skipsubmodules": "source.git.skipsubmodules",
    "http.checksum": "source.http.checksum",
    "http.perm": "source.http.perm",
    "http.uid": "soruce.http.uidgid",
    "http.gid": "soruce.http.uidgid",
    "http.authheadersecret": "source.http.auth",
}

_MOUNTS = {
    MountType.BIND: "exec.mount.bind",
    MountType.CACHE: "exec.mount.cache",
    MountType.TMPFS: "exec.mount.tmpfs",
    MountType.SECRET: "exec.mount.secret",
    MountType.SSH: "exec.mount.ssh",
}


def required(op: Op) -> frozenset[str]:
    """What the engine that runs this operation must be capable of."""
    return frozenset(_of_payload(op.payload)) if op.payload is not None else frozenset()


def required_by_metadata(metadata: Iterable[OpMetadata]) -> frozenset[str]:
    """What the terminal operation asks for on behalf of the whole definition."""
    needed = {"constraints", "platform"}
    for known in metadata:
        if known.ignore_cache:
            needed.add("meta.ignorecache")
        if known.description:
            needed.add("meta.description")
        if known.export_cache is not None:
            needed.add("meta.exportcache")
    return frozenset(needed)


def _of_payload(payload: Payload) -> Iterable[str]:
    match payload:
        case SourceOp():
            return _of_source(payload)
        case ExecOp():
            return _of_exec(payload)
        case FileOp():
            return _of_file(payload)
        case MergeOp():
            return ("mergeop",)
        case DiffOp():
            return ("diffop",)
        case BuildOp():
            return ("source.buildop.llbfilename",) if "llbbuild.filename" in payload.attrs else ()


def _of_source(op: SourceOp) -> Iterable[str]:
    scheme = op.identifier.partition("://")[0]
    if scheme in _SOURCES:
        yield _SOURCES[scheme]
    for key, value in op.attrs.items():
        if key in _ATTRIBUTES:
            yield _ATTRIBUTES[key]
        elif key.startswith("http.header."):
            yield "source.http.header"
        elif key == "image.resolvemode" and value == "pull":  # the other modes are hints that may be ignored
            yield "source.image.resolvemode"


def _of_exec(op: ExecOp) -> Iterable[str]:
    yield "exec.meta.base"
    yield "exec.meta.setsdefaultpath"  # our operations leave PATH to the engine
    yield from _of_meta(op.meta)
    if op.network != NetMode.SANDBOX:
        yield "exec.meta.network"
    if op.security != SecurityMode.SANDBOX:
        yield "exec.meta.security"
    if op.cdi_devices:
        yield "exec.meta.cdi"
    if op.secret_env:
        yield from ("exec.mount.secret", "exec.secretenv")
    for mount in op.mounts:
        yield from _of_mount(mount)


def _of_meta(meta: Meta) -> Iterable[str]:
    if meta.proxy_env is not None:
        yield "exec.meta.proxyenv"
    if meta.ulimits:
        yield "exec.meta.ulimit"
    if meta.cgroup_parent:
        yield "exec.meta.cgroup.parent"
    if meta.valid_exit_codes:
        yield "exec.validexitcode"


def _of_mount(mount: Mount) -> Iterable[str]:
    yield _MOUNTS[mount.type]
    if mount.cache is not None:
        yield "exec.mount.cache.sharing"
    if mount.selector:
        yield "exec.mount.selector"
    if mount.tmpfs_size:
        yield "exec.mount.tmpfs.size"
    if mount.content_cache != ContentCache.DEFAULT:
        yield "exec.mount.cache.content"


def _of_file(op: FileOp) -> Iterable[str]:
    """Not `file.copy.modestring`: BuildKit v0.26 has that id and refuses it, since nobody has registered it there."""
    yield "file.base"
    for step in op.actions:
        match step.action:
            case CopyAction() as action:
                if action.include_patterns or action.exclude_patterns:
                    yield "file.copy.includeexcludepatterns"
                if action.required_paths:
                    yield "file.copy.requiredpaths"
                if action.always_replace_existing_dest_paths:
                    yield "file.copy.alwaysreplaceexistingdestpaths"
            case Symlink():
                yield "file.symlink.create"
