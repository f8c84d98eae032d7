"""What a `run` can mount: trees, caches, scratch memory, secrets and ssh agents.

>>> Cache(target="/root/.cache/pip", sharing=CacheSharing.LOCKED).identity
'/root/.cache/pip'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from buildengine.values import dataclass
from llb.ops import (
    NO_INPUT,
    NO_OUTPUT,
    CacheOpt,
    CacheSharing,
    ContentCache,
    Mount,
    MountType,
    SecretEnv,
    SecretOpt,
    SSHOpt,
)

if TYPE_CHECKING:
    from llb.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """The tree of `source`, or its `selector`, at `target`; no source is an empty directory.

    Changes become a result, `ExecState.mount(target)`, unless `readonly`, or not `output` (they are thrown away).
    """

    target: str
    source: State | None = None
    selector: str = ""
    readonly: bool = False
    output: bool = True
    content_cache: ContentCache = ContentCache.DEFAULT

    @property
    def has_output(self) -> bool:
        return self.output and not self.readonly

    def mount(self, output: int) -> Mount:
        return Mount(
            dest=self.target,
            selector=self.selector,
            output=output,
            readonly=self.readonly,
            content_cache=self.content_cache,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """A directory that outlives the build, one for each `id` (by default the target). `base` is what it starts as."""

    target: str
    id: str = ""
    sharing: CacheSharing = CacheSharing.SHARED
    base: State | None = None
    selector: str = ""
    readonly: bool = False

    @property
    def identity(self) -> str:
        return self.id or self.target

    def mount(self) -> Mount:
        return Mount(
            dest=self.target,
            selector=self.selector,
            output=NO_OUTPUT,
            readonly=self.readonly,
            type=MountType.CACHE,
            cache=CacheOpt(id=self.identity, sharing=self.sharing),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tmpfs:
    """Memory that is gone after the step. `size` is in bytes, 0 the kernel's default."""

    target: str
    size: int = 0

    def mount(self) -> Mount:
        return Mount(dest=self.target, output=NO_OUTPUT, type=MountType.TMPFS, tmpfs_size=self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A secret of the client as a file, an environment variable, or both. Its value never enters the build's keys.

    With neither `target` nor `env` it is the file `/run/secrets/<id>`.
    """

    id: str
    target: str = ""
    env: str = ""
    uid: int = 0
    gid: int = 0
    mode: int = 0o400
    optional: bool = False

    def mount(self) -> Mount | None:
        if self.env and not self.target:
            return None
        opt = SecretOpt(id=self.id, uid=self.uid, gid=self.gid, mode=self.mode, optional=self.optional)
        # Output 0, as BuildKit's client has it: only trees become results, see llb.outputs.
        target = self.target or f"/run/secrets/{self.id}"
        return Mount(dest=target, input=NO_INPUT, output=0, type=MountType.SECRET, secret=opt)

    def variable(self) -> SecretEnv | None:
        return SecretEnv(id=self.id, name=self.env, optional=self.optional) if self.env else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ssh:
    """An ssh agent of the client as a socket; the first one is also named by SSH_AUTH_SOCK."""

    id: str = "default"
    target: str = ""
    uid: int = 0
    gid: int = 0
    mode: int = 0o600
    optional: bool = False

    def socket(self, position: int) -> str:
        """Where the socket is when this is number `position` of the step's agents."""
        return self.target or f"/run/buildkit/ssh_agent.{position}"

    def mount(self, position: int) -> Mount:
        opt = SSHOpt(id=self.id, uid=self.uid, gid=self.gid, mode=self.mode, optional=self.optional)
        return Mount(dest=self.socket(position), input=NO_INPUT, output=0, type=MountType.SSH, ssh=opt)


AnyMount = Bind | Cache | Tmpfs | Secret | Ssh
