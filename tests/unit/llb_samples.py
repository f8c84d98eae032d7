"""Operations to test with: one of each kind with every field set, and hypothesis strategies for all of them."""

from __future__ import annotations

from types import MappingProxyType

from hypothesis import strategies as st

from buildengine.digest import Digest
from buildengine.events import ProgressGroup
from buildengine.platform import Platform
from llb import ops

A = Digest.sha256(b"a")
B = Digest.sha256(b"b")
AMD64 = Platform(os="linux", architecture="amd64")
ARM = Platform(os="linux", architecture="arm", variant="v6", os_version="1", os_features=("x",))

FULL_EXEC = ops.ExecOp(
    meta=ops.Meta(
        args=("/bin/sh", "-c", "make"),
        env=("PATH=/bin", "EMPTY="),
        cwd="/src",
        user="app:app",
        proxy_env=ops.ProxyEnv(http_proxy="a", https_proxy="b", ftp_proxy="c", no_proxy="d", all_proxy="e"),
        extra_hosts=(ops.HostIP(host="db", ip="10.0.0.1"),),
        hostname="builder",
        ulimits=(ops.Ulimit(name="nofile", soft=-1, hard=1 << 40),),
        cgroup_parent="/builds",
        remove_mount_stubs_recursive=True,
        valid_exit_codes=(0, 3, 130),
    ),
    mounts=(
        ops.Mount(dest="/", input=0, output=0),
        ops.Mount(
            dest="/c", type=ops.MountType.CACHE, cache=ops.CacheOpt(id="c", sharing=ops.CacheSharing.LOCKED), input=1
        ),
        ops.Mount(dest="/t", type=ops.MountType.TMPFS, tmpfs_size=1 << 20),
        ops.Mount(
            dest="/s",
            output=0,
            type=ops.MountType.SECRET,
            secret=ops.SecretOpt(id="s", uid=1, gid=2, mode=0o440, optional=True),
        ),
        ops.Mount(dest="/a", output=0, type=ops.MountType.SSH, ssh=ops.SSHOpt(id="default")),
        ops.Mount(
            dest="/b",
            input=1,
            selector="sub",
            output=1,
            readonly=True,
            result_id="r",
            content_cache=ops.ContentCache.ON,
        ),
    ),
    network=ops.NetMode.NONE,
    security=ops.SecurityMode.INSECURE,
    secret_env=(ops.SecretEnv(id="token", name="TOKEN", optional=True),),
    cdi_devices=(ops.CDIDevice(name="vendor.com/gpu=0", optional=True),),
)

_OWNER = ops.Owner(user=ops.NamedUser(name="app", input=0), group=5)

FULL_FILE = ops.FileOp(
    actions=(
        ops.FileAction(action=ops.MkDir(path="/a", mode=0o755, make_parents=True, owner=_OWNER, timestamp=7), input=0),
        ops.FileAction(action=ops.MkFile(path="/a/f", mode=0o1644, data=b"\x00\xff", owner=_OWNER), input=2),
        ops.FileAction(action=ops.Symlink(oldpath="f", newpath="/a/l", owner=ops.Owner()), input=3),
        ops.FileAction(action=ops.Remove(path="/a/*", allow_not_found=True, allow_wildcard=True), input=4),
        ops.FileAction(
            action=ops.CopyAction(
                src="/x",
                dest="/y/",
                owner=_OWNER,
                mode=0o600,
                mode_str="u+x",
                follow_symlink=True,
                dir_copy_contents=True,
                attempt_unpack=True,
                create_dest_path=True,
                allow_wildcard=True,
                allow_empty_wildcard=True,
                timestamp=1 << 60,
                include_patterns=("*.go",),
                exclude_patterns=("vendor",),
                always_replace_existing_dest_paths=True,
                required_paths=("go.mod",),
            ),
            input=5,
            secondary_input=1,
            output=0,
        ),
    )
)

INPUTS = (ops.Input(digest=A), ops.Input(digest=B, index=1))

SAMPLES = {
    "image": ops.Op(
        payload=ops.SourceOp(
            identifier="docker-image://docker.io/library/busybox:latest",
            attrs={"image.resolvemode": "pull", "image.layerlimit": "2", "a": ""},
        ),
        platform=AMD64,
    ),
    "exec": ops.Op(inputs=INPUTS, payload=FULL_EXEC, platform=ARM, constraints=("label.os==linux",)),
    "exec-plain": ops.Op(
        inputs=(ops.Input(digest=A),),
        payload=ops.ExecOp(meta=ops.Meta(args=("true",)), mounts=(ops.Mount(dest="/", input=0, output=0),)),
        platform=AMD64,
    ),
    "file": ops.Op(inputs=INPUTS, payload=FULL_FILE),
    "merge": ops.Op(inputs=INPUTS, payload=ops.MergeOp(inputs=(0, 1))),
    "diff": ops.Op(inputs=INPUTS, payload=ops.DiffOp(lower=0, upper=1)),
    "diff-scratch": ops.Op(inputs=INPUTS[:1], payload=ops.DiffOp(lower=0)),
    "build": ops.Op(
        inputs=INPUTS[:1],
        payload=ops.BuildOp(
            builder=-1,
            inputs={"buildkit.llb.definition": 0},
            definition=b"\x0a\x02op",
            attrs={"llbbuild.filename": "llb.pb"},
        ),
    ),
    "terminal": ops.Op(inputs=INPUTS[1:]),
}

# --- strategies -------------------------------------------------------------------------------------------

text = st.text(st.characters(codec="utf-8"), max_size=8)
texts = st.lists(text, max_size=3).map(tuple)
int32 = st.integers(-(1 << 31), (1 << 31) - 1)
int64 = st.integers(-(1 << 63), (1 << 63) - 1)
uint32 = st.integers(0, (1 << 32) - 1)
string_maps = st.dictionaries(text, text, max_size=3).map(MappingProxyType)
digests = st.binary(max_size=4).map(Digest.sha256)
platforms = st.sampled_from([AMD64, ARM, Platform(os="windows", architecture="amd64", os_version="10.0.1")])

_credentials = {"id": text, "uid": uint32, "gid": uint32, "mode": uint32, "optional": st.booleans()}
_users = st.none() | uint32 | st.builds(ops.NamedUser, name=text, input=int64)
_owners = st.none() | st.builds(ops.Owner, user=_users, group=_users)

metas = st.builds(
    ops.Meta,
    args=texts,
    env=texts,
    cwd=text,
    user=text,
    proxy_env=st.none() | st.builds(ops.ProxyEnv, http_proxy=text, no_proxy=text, all_proxy=text),
    extra_hosts=st.lists(st.builds(ops.HostIP, host=text, ip=text), max_size=2).map(tuple),
    hostname=text,
    ulimits=st.lists(st.builds(ops.Ulimit, name=text, soft=int64, hard=int64), max_size=2).map(tuple),
    cgroup_parent=text,
    remove_mount_stubs_recursive=st.booleans(),
    valid_exit_codes=st.lists(int32, max_size=3).map(tuple),
)
mounts = st.builds(
    ops.Mount,
    dest=text,
    input=int64,
    selector=text,
    output=int64,
    readonly=st.booleans(),
    type=st.sampled_from(ops.MountType),
    tmpfs_size=int64,
    cache=st.none() | st.builds(ops.CacheOpt, id=text, sharing=st.sampled_from(ops.CacheSharing)),
    secret=st.none() | st.builds(ops.SecretOpt, **_credentials),
    ssh=st.none() | st.builds(ops.SSHOpt, **_credentials),
    result_id=text,
    content_cache=st.sampled_from(ops.ContentCache),
)
actions = st.one_of(
    st.builds(
        ops.CopyAction,
        src=text,
        dest=text,
        owner=_owners,
        mode=int32,
        mode_str=text,
        follow_symlink=st.booleans(),
        allow_wildcard=st.booleans(),
        timestamp=int64,
        include_patterns=texts,
        exclude_patterns=texts,
        required_paths=texts,
    ),
    st.builds(ops.MkFile, path=text, mode=int32, data=st.binary(max_size=9), owner=_owners, timestamp=int64),
    st.builds(ops.MkDir, path=text, mode=int32, make_parents=st.booleans(), owner=_owners, timestamp=int64),
    st.builds(ops.Remove, path=text, allow_not_found=st.booleans(), allow_wildcard=st.booleans()),
    st.builds(ops.Symlink, oldpath=text, newpath=text, owner=_owners, timestamp=int64),
)
file_actions = st.builds(ops.FileAction, action=actions, input=int64, secondary_input=int64, output=int64)
payloads = st.one_of(
    st.none(),
    st.builds(ops.SourceOp, identifier=text, attrs=string_maps),
    st.builds(
        ops.ExecOp,
        meta=metas,
        mounts=st.lists(mounts, max_size=3).map(tuple),
        network=st.sampled_from(ops.NetMode),
        security=st.sampled_from(ops.SecurityMode),
        secret_env=st.lists(st.builds(ops.SecretEnv, id=text, name=text), max_size=2).map(tuple),
        cdi_devices=st.lists(st.builds(ops.CDIDevice, name=text), max_size=2).map(tuple),
    ),
    st.builds(ops.FileOp, actions=st.lists(file_actions, max_size=3).map(tuple)),
    st.builds(ops.MergeOp, inputs=st.lists(int64, max_size=3).map(tuple)),
    st.builds(ops.DiffOp, lower=int64, upper=int64),
    st.builds(
        ops.BuildOp,
        builder=int64,
        inputs=st.dictionaries(text, int64, max_size=2).map(MappingProxyType),
        definition=st.sampled_from([b"", b"\x0a\x02op"]),
        attrs=string_maps,
    ),
)
all_ops = st.builds(
    ops.Op,
    inputs=st.lists(st.builds(ops.Input, digest=digests, index=int64), max_size=3).map(tuple),
    payload=payloads,
    platform=st.none() | platforms,
    constraints=texts,
)
metadata = st.builds(
    ops.OpMetadata,
    ignore_cache=st.booleans(),
    description=string_maps,
    export_cache=st.none() | st.booleans(),
    caps=st.frozensets(text, max_size=3),
    progress_group=st.none() | st.builds(ProgressGroup, id=text, name=text, weak=st.booleans()),
)
