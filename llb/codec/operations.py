"""One operation to bytes and back: sources, exec, merge, diff, build. File operations are in `files`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from buildengine import platform as platforms
from buildengine.digest import Digest
from buildengine.errors import InvalidDefinition, UserError
from buildengine.platform import Platform
from llb import ops
from llb.codec.files import file_message, file_op
from llb.pb import ops_pb2 as pb


def encode(op: ops.Op) -> bytes:
    """The bytes whose sha256 is the operation's digest. Raises InvalidDefinition for what the wire cannot hold."""
    try:
        # Go writes a oneof after all other fields (protobuf-go, codec_message.go: "marshal oneofs last"). Messages
        # that follow each other are one message, so the payload is written by itself, behind the rest.
        return _frame(op).SerializeToString(deterministic=True) + _payload_bytes(op.payload)
    except (ValueError, DecodeError) as error:  # out of a field's range, not UTF-8, or a BuildOp of garbage
        raise InvalidDefinition(f"operation cannot be encoded: {error}") from error


def decode(data: bytes) -> ops.Op:
    """The operation that these bytes are. Raises InvalidDefinition."""
    try:
        return _op(pb.Op.FromString(data))
    except DecodeError as error:
        raise InvalidDefinition("operation is not an LLB message", hint="is this really LLB?") from error
    except InvalidDefinition:
        raise
    except (ValueError, UserError) as error:  # an unknown enum value; a digest that is none
        raise InvalidDefinition(f"operation cannot be decoded: {error}") from error


def rewritten(data: bytes, inputs: Mapping[Digest, Digest], source: ops.SourceOp | None = None) -> bytes:
    """The bytes of another operation: with other `inputs`, by those it has, and with another `source`.

    All else stays, also what nobody here knows. Raises InvalidDefinition.
    """
    try:
        message = pb.Op.FromString(data)
        for edge in message.inputs:
            edge.digest = inputs.get(Digest(edge.digest), edge.digest)
        if source is not None:
            message.source.identifier = source.identifier
            message.source.attrs.clear()
            message.source.attrs.update(source.attrs)
        return message.SerializeToString(deterministic=True)
    except (ValueError, DecodeError) as error:
        raise InvalidDefinition(f"operation cannot be encoded: {error}") from error


def _frame(op: ops.Op) -> pb.Op:
    """Everything but the payload."""
    filtered = op.payload is not None or op.constraints
    return pb.Op(
        inputs=[pb.Input(digest=i.digest, index=i.index) for i in op.inputs],
        platform=None if op.platform is None else _platform_message(op.platform),
        constraints=pb.WorkerConstraints(filter=op.constraints) if filtered else None,
    )


def _payload_bytes(payload: ops.Payload | None) -> bytes:
    return b"" if payload is None else _payload_message(payload).SerializeToString(deterministic=True)


def _payload_message(payload: ops.Payload) -> pb.Op:
    match payload:
        case ops.ExecOp():
            return pb.Op(exec=_exec_message(payload))
        case ops.SourceOp():
            return pb.Op(source=pb.SourceOp(identifier=payload.identifier, attrs=payload.attrs))
        case ops.FileOp():
            return pb.Op(file=file_message(payload))
        case ops.MergeOp():
            return pb.Op(merge=pb.MergeOp(inputs=[pb.MergeInput(input=i) for i in payload.inputs]))
        case ops.DiffOp():
            lower, upper = pb.LowerDiffInput(input=payload.lower), pb.UpperDiffInput(input=payload.upper)
            return pb.Op(diff=pb.DiffOp(lower=lower, upper=upper))
        case ops.BuildOp():
            return pb.Op(build=_build_message(payload))


def _op(m: pb.Op) -> ops.Op:
    return ops.Op(
        inputs=tuple([ops.Input(digest=Digest.parse(i.digest), index=i.index) for i in m.inputs]),
        payload=_payload(m),
        platform=_platform(m.platform) if m.HasField("platform") else None,
        constraints=tuple(m.constraints.filter),
    )


def _payload(m: pb.Op) -> ops.Payload | None:
    match m.WhichOneof("op"):
        case "exec":
            return _exec(m.exec)
        case "source":
            return ops.SourceOp(identifier=m.source.identifier, attrs=_strings(m.source.attrs))
        case "file":
            return file_op(m.file)
        case "merge":
            return ops.MergeOp(inputs=tuple([i.input for i in m.merge.inputs]))
        case "diff":
            if not (m.diff.HasField("lower") and m.diff.HasField("upper")):
                raise InvalidDefinition("diff operation without a lower or an upper tree")
            return ops.DiffOp(lower=m.diff.lower.input, upper=m.diff.upper.input)
        case "build":
            return _build(m.build)
    unknown = UnknownFieldSet(m)
    if len(unknown):
        raise InvalidDefinition(
            f"unknown kind of operation (field {unknown[0].field_number})", hint="it needs a newer engine than this one"
        )
    return None


def _strings(m: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(m)) if m else ops.EMPTY


def _platform_message(p: Platform) -> pb.Platform:
    return pb.Platform(
        Architecture=p.architecture, OS=p.os, Variant=p.variant, OSVersion=p.os_version, OSFeatures=p.os_features
    )


def _platform(m: pb.Platform) -> Platform:
    return _normalized(m.OS, m.Architecture, m.Variant, m.OSVersion, tuple(m.OSFeatures))


@lru_cache(maxsize=64)  # ten thousand operations have two or three platforms between them
def _normalized(os: str, architecture: str, variant: str, os_version: str, os_features: tuple[str, ...]) -> Platform:
    raw = Platform(os=os, architecture=architecture, variant=variant, os_version=os_version, os_features=os_features)
    return platforms.normalize(raw)


# --- exec -------------------------------------------------------------------------------------------------


def _exec_message(op: ops.ExecOp) -> pb.ExecOp:
    return pb.ExecOp(
        meta=_meta_message(op.meta),
        mounts=[_mount_message(m) for m in op.mounts],
        network=pb.NetMode.ValueType(op.network),
        security=pb.SecurityMode.ValueType(op.security),
        secretenv=[pb.SecretEnv(ID=s.id, name=s.name, optional=s.optional) for s in op.secret_env],
        cdiDevices=[pb.CDIDevice(name=d.name, optional=d.optional) for d in op.cdi_devices],
    )


def _exec(m: pb.ExecOp) -> ops.ExecOp:
    return ops.ExecOp(
        meta=_meta(m.meta),
        mounts=tuple([_mount(x) for x in m.mounts]),
        network=ops.NetMode(m.network),
        security=ops.SecurityMode(m.security),
        secret_env=tuple([ops.SecretEnv(id=s.ID, name=s.name, optional=s.optional) for s in m.secretenv]),
        cdi_devices=tuple([ops.CDIDevice(name=d.name, optional=d.optional) for d in m.cdiDevices]),
    )


def _meta_message(meta: ops.Meta) -> pb.Meta:
    return pb.Meta(
        args=meta.args,
        env=meta.env,
        cwd=meta.cwd,
        user=meta.user,
        proxy_env=None if meta.proxy_env is None else _proxy_env_message(meta.proxy_env),
        extraHosts=[pb.HostIP(Host=h.host, IP=h.ip) for h in meta.extra_hosts],
        hostname=meta.hostname,
        ulimit=[pb.Ulimit(Name=u.name, Soft=u.soft, Hard=u.hard) for u in meta.ulimits],
        cgroupParent=meta.cgroup_parent,
        removeMountStubsRecursive=meta.remove_mount_stubs_recursive,
        validExitCodes=meta.valid_exit_codes,
    )


def _meta(m: pb.Meta) -> ops.Meta:
    return ops.Meta(
        args=tuple(m.args),
        env=tuple(m.env),
        cwd=m.cwd,
        user=m.user,
        proxy_env=_proxy_env(m.proxy_env) if m.HasField("proxy_env") else None,
        extra_hosts=tuple([ops.HostIP(host=h.Host, ip=h.IP) for h in m.extraHosts]),
        hostname=m.hostname,
        ulimits=tuple([ops.Ulimit(name=u.Name, soft=u.Soft, hard=u.Hard) for u in m.ulimit]),
        cgroup_parent=m.cgroupParent,
        remove_mount_stubs_recursive=m.removeMountStubsRecursive,
        valid_exit_codes=tuple(m.validExitCodes),
    )


def _proxy_env_message(proxy: ops.ProxyEnv) -> pb.ProxyEnv:
    return pb.ProxyEnv(
        http_proxy=proxy.http_proxy,
        https_proxy=proxy.https_proxy,
        ftp_proxy=proxy.ftp_proxy,
        no_proxy=proxy.no_proxy,
        all_proxy=proxy.all_proxy,
    )


def _proxy_env(m: pb.ProxyEnv) -> ops.ProxyEnv:
    return ops.ProxyEnv(
        http_proxy=m.http_proxy,
        https_proxy=m.https_proxy,
        ftp_proxy=m.ftp_proxy,
        no_proxy=m.no_proxy,
        all_proxy=m.all_proxy,
    )


def _mount_message(mount: ops.Mount) -> pb.Mount:
    sized = mount.type == ops.MountType.TMPFS or mount.tmpfs_size != 0
    return pb.Mount(
        input=mount.input,
        selector=mount.selector,
        dest=mount.dest,
        output=mount.output,
        readonly=mount.readonly,
        mountType=pb.MountType.ValueType(mount.type),
        TmpfsOpt=pb.TmpfsOpt(size=mount.tmpfs_size) if sized else None,
        cacheOpt=None if mount.cache is None else _cache_message(mount.cache),
        secretOpt=None if mount.secret is None else _secret_message(mount.secret),
        SSHOpt=None if mount.ssh is None else _ssh_message(mount.ssh),
        resultID=mount.result_id,
        contentCache=pb.MountContentCache.ValueType(mount.content_cache),
    )


def _mount(m: pb.Mount) -> ops.Mount:
    return ops.Mount(
        dest=m.dest,
        input=m.input,
        selector=m.selector,
        output=m.output,
        readonly=m.readonly,
        type=ops.MountType(m.mountType),
        tmpfs_size=m.TmpfsOpt.size,
        cache=_cache(m.cacheOpt) if m.HasField("cacheOpt") else None,
        secret=_secret(m.secretOpt) if m.HasField("secretOpt") else None,
        ssh=_ssh(m.SSHOpt) if m.HasField("SSHOpt") else None,
        result_id=m.resultID,
        content_cache=ops.ContentCache(m.contentCache),
    )


def _cache_message(opt: ops.CacheOpt) -> pb.CacheOpt:
    return pb.CacheOpt(ID=opt.id, sharing=pb.CacheSharingOpt.ValueType(opt.sharing))


def _cache(m: pb.CacheOpt) -> ops.CacheOpt:
    return ops.CacheOpt(id=m.ID, sharing=ops.CacheSharing(m.sharing))


def _secret_message(opt: ops.SecretOpt) -> pb.SecretOpt:
    return pb.SecretOpt(ID=opt.id, uid=opt.uid, gid=opt.gid, mode=opt.mode, optional=opt.optional)


def _secret(m: pb.SecretOpt) -> ops.SecretOpt:
    return ops.SecretOpt(id=m.ID, uid=m.uid, gid=m.gid, mode=m.mode, optional=m.optional)


def _ssh_message(opt: ops.SSHOpt) -> pb.SSHOpt:
    return pb.SSHOpt(ID=opt.id, uid=opt.uid, gid=opt.gid, mode=opt.mode, optional=opt.optional)


def _ssh(m: pb.SSHOpt) -> ops.SSHOpt:
    return ops.SSHOpt(id=m.ID, uid=m.uid, gid=m.gid, mode=m.mode, optional=m.optional)


# --- build ------------------------------------------------------------------------------------------------


def _build_message(op: ops.BuildOp) -> pb.BuildOp:
    return pb.BuildOp(
        builder=op.builder,
        inputs={name: pb.BuildInput(input=index) for name, index in op.inputs.items()},
        attrs=op.attrs,
        **({"def": pb.Definition.FromString(op.definition)} if op.definition else {}),
    )


def _build(m: pb.BuildOp) -> ops.BuildOp:
    definition: pb.Definition = getattr(m, "def")  # a keyword of Python
    return ops.BuildOp(
        builder=m.builder,
        inputs=MappingProxyType({name: i.input for name, i in m.inputs.items()}),
        definition=definition.SerializeToString(deterministic=True),
        attrs=_strings(m.attrs),
    )
