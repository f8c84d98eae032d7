"""The values of LLB: one frozen class for each operation that the wire format knows.

Names and meanings are those of BuildKit's `pb` package (llb/pb/ops.proto); `llb.codec` turns these into
bytes and back. Nothing here touches a file, imports protobuf or knows who executes what.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import IntEnum
from types import MappingProxyType

from buildengine.digest import Digest
from buildengine.events import ProgressGroup
from buildengine.platform import Platform
from buildengine.values import dataclass

EMPTY: Mapping[str, str] = MappingProxyType({})  # as a default: `field(default_factory=lambda: EMPTY)`
NO_INPUT = -1  # InputIndex: the action or mount starts from nothing (scratch)
NO_OUTPUT = -1  # OutputIndex: the result is thrown away


class NetMode(IntEnum):
    SANDBOX = 0
    HOST = 1
    NONE = 2


class SecurityMode(IntEnum):
    SANDBOX = 0
    INSECURE = 1


class MountType(IntEnum):
    BIND = 0
    SECRET = 1
    SSH = 2
    CACHE = 3
    TMPFS = 4


class CacheSharing(IntEnum):
    SHARED = 0
    PRIVATE = 1
    LOCKED = 2


class ContentCache(IntEnum):
    DEFAULT = 0
    ON = 1
    OFF = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """An edge: output `index` of the operation with this digest."""

    digest: Digest
    index: int = 0


# --- source -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOp:
    """Something from outside: `docker-image://`, `local://`, `git://`, `http(s)://`, `oci-layout://`."""

    identifier: str
    attrs: Mapping[str, str] = field(default_factory=lambda: EMPTY)


# --- exec -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyEnv:
    http_proxy: str = ""
    https_proxy: str = ""
    ftp_proxy: str = ""
    no_proxy: str = ""
    all_proxy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostIP:
    host: str
    ip: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ulimit:
    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """The process: what `execve` and its surroundings get. `env` entries are `KEY=value`."""

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    proxy_env: ProxyEnv | None = None
    extra_hosts: tuple[HostIP, ...] = ()
    hostname: str = ""
    ulimits: tuple[Ulimit, ...] = ()
    cgroup_parent: str = ""
    remove_mount_stubs_recursive: bool = False
    valid_exit_codes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretOpt:
    id: str
    uid: int = 0
    gid: int = 0
    mode: int = 0o400
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SSHOpt:
    id: str
    uid: int = 0
    gid: int = 0
    mode: int = 0o600
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOpt:
    id: str
    sharing: CacheSharing = CacheSharing.SHARED


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One mount of an exec. `input` indexes the op's inputs; `output` numbers the result it becomes."""

    dest: str
    input: int = NO_INPUT
    selector: str = ""
    output: int = NO_OUTPUT
    readonly: bool = False
    type: MountType = MountType.BIND
    tmpfs_size: int = 0
    cache: CacheOpt | None = None
    secret: SecretOpt | None = None
    ssh: SSHOpt | None = None
    result_id: str = ""
    content_cache: ContentCache = ContentCache.DEFAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretEnv:
    id: str
    name: str
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CDIDevice:
    name: str
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecOp:
    meta: Meta
    mounts: tuple[Mount, ...]
    network: NetMode = NetMode.SANDBOX
    security: SecurityMode = SecurityMode.SANDBOX
    secret_env: tuple[SecretEnv, ...] = ()
    cdi_devices: tuple[CDIDevice, ...] = ()


# --- file -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedUser:
    """A user or group by name, looked up in the tree of input `input`."""

    name: str
    input: int = NO_INPUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who will own the files. An int is an id, a NamedUser is looked up; no user is 0, no group that of the user."""

    user: int | NamedUser | None = None
    group: int | NamedUser | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyAction:
    """Copy `src` of the secondary input to `dest`. `mode` -1 keeps modes; `timestamp` is ns, -1 keeps times."""

    src: str
    dest: str
    owner: Owner | None = None
    mode: int = -1
    mode_str: str = ""
    follow_symlink: bool = False
    dir_copy_contents: bool = False
    attempt_unpack: bool = False
    create_dest_path: bool = False
    allow_wildcard: bool = False
    allow_empty_wildcard: bool = False
    timestamp: int = -1
    include_patterns: tuple[str, ...] = ()
    exclude_patterns: tuple[str, ...] = ()
    always_replace_existing_dest_paths: bool = False
    required_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MkFile:
    path: str
    mode: int
    data: bytes
    owner: Owner | None = None
    timestamp: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class MkDir:
    path: str
    mode: int
    make_parents: bool = False
    owner: Owner | None = None
    timestamp: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    path: str
    allow_not_found: bool = False
    allow_wildcard: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Symlink:
    oldpath: str
    newpath: str
    owner: Owner | None = None
    timestamp: int = -1


Action = CopyAction | MkFile | MkDir | Remove | Symlink


@dataclass(frozen=True, slots=True, kw_only=True)
class FileAction:
    """`input` and `secondary_input` index first the op's inputs, then the results of earlier actions."""

    action: Action
    input: int = NO_INPUT
    secondary_input: int = NO_INPUT
    output: int = NO_OUTPUT


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOp:
    actions: tuple[FileAction, ...]


# --- merge, diff, build -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeOp:
    """Layers of `inputs` (indexes), the last on top."""

    inputs: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffOp:
    """What turns `lower` into `upper`; NO_INPUT is the empty tree."""

    lower: int = NO_INPUT
    upper: int = NO_INPUT


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOp:
    """A build inside the build: `builder` NO_INPUT-like -1 means the `llb` frontend; `def_` files by name."""

    builder: int
    inputs: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    definition: bytes = b""
    attrs: Mapping[str, str] = field(default_factory=lambda: EMPTY)


Payload = SourceOp | ExecOp | FileOp | MergeOp | DiffOp | BuildOp


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One vertex as the wire has it. `payload` None is the terminal pseudo-op that names the result edge."""

    inputs: tuple[Input, ...] = ()
    payload: Payload | None = None
    platform: Platform | None = None
    constraints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpMetadata:
    """What must not change an op's identity. `description` holds `llb.customname` and friends."""

    ignore_cache: bool = False
    description: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    export_cache: bool | None = None
    caps: frozenset[str] = frozenset()
    progress_group: ProgressGroup | None = None
