"""How a command on a state becomes an exec vertex: mounts in order, outputs numbered, surroundings written out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING

from buildengine import platform as platforms
from buildengine.errors import InvalidDefinition, UserError
from buildengine.platform import Platform
from buildengine.values import dataclass
from llb.environ import Environ
from llb.mounts import AnyMount, Bind, Cache, Secret, Ssh, Tmpfs
from llb.ops import (
    NO_OUTPUT,
    CDIDevice,
    ExecOp,
    HostIP,
    Meta,
    Mount,
    NetMode,
    ProxyEnv,
    SecurityMode,
    Ulimit,
)
from llb.paths import resolve
from llb.vertices import About, ExecVertex, Output

if TYPE_CHECKING:
    from llb.state import State

ROOT = "/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a state carries beside its tree, for the commands that will run on it."""

    environ: Environ = field(default_factory=Environ)
    cwd: str = "/"
    user: str = ""
    platform: Platform | None = None
    hostname: str = ""
    network: NetMode = NetMode.SANDBOX
    security: SecurityMode = SecurityMode.SANDBOX
    extra_hosts: tuple[HostIP, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    cgroup_parent: str = ""

    def with_env(self, added: Mapping[str, str]) -> Surroundings:
        """A variable that is set again moves to the end: the order of `environ` is the order of setting."""
        return replace(self, environ=self.environ.adding(added)) if added else self

    def changed(
        self,
        env: Mapping[str, str],
        cwd: str,
        user: str | None,
        network: NetMode | None,
        security: SecurityMode | None,
        platform: Platform | None,
    ) -> Surroundings:
        """For one command: with these added, and with those that are not None in place of what there is."""
        return replace(
            self.with_env(env),
            cwd=_entered(self.cwd, cwd) if cwd else self.cwd,
            user=self.user if user is None else user,
            network=self.network if network is None else network,
            security=self.security if security is None else security,
            platform=platform or self.platform,
        )

    def with_dir(self, path: str) -> Surroundings:
        return replace(self, cwd=_entered(self.cwd, path))

    def with_image_config(self, config: bytes) -> Surroundings:
        """Environment, directory and platform as an image config says. Raises UserError."""
        try:
            document = json.loads(config)
            inner = document.get("config") or {}
            pairs = [entry.partition("=") for entry in inner.get("Env") or ()]
            directory = str(inner.get("WorkingDir") or "")
        except (ValueError, AttributeError, TypeError) as error:
            raise UserError(f"invalid image config: {error}") from error
        around = self.with_env({name: value for name, _, value in pairs if name}).with_dir(directory)
        if document.get("os") and document.get("architecture"):
            around = replace(around, platform=platforms.from_json(document))
        return around


def _entered(directory: str, path: str) -> str:
    """An absolute path as it is written, and a relative one from `directory` on (client/llb/meta.go: Dir)."""
    return path if path.startswith("/") else resolve(directory, path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What is run, beside what the state carries. Lists are as the user gave them."""

    args: tuple[str, ...]
    mounts: tuple[AnyMount, ...] = ()
    readonly_root: bool = False
    proxy: ProxyEnv | None = None
    devices: tuple[CDIDevice, ...] = ()
    valid_exit_codes: tuple[int, ...] = ()


def exec_vertex(
    base: Output | None, around: Surroundings, command: Command, about: About
) -> tuple[ExecVertex, Mapping[str, int]]:
    """The vertex, and which output each writable mount became, by target."""
    problem = _problem(command)
    if problem:
        raise InvalidDefinition(problem).located(*[place.location for place in about.places])
    secrets = [m for m in command.mounts if isinstance(m, Secret)]
    agents = [m for m in command.mounts if isinstance(m, Ssh)]
    if agents and "SSH_AUTH_SOCK" not in around.environ:
        around = around.with_env({"SSH_AUTH_SOCK": agents[0].socket(0)})
    mounts, outputs = _trees(base, command)
    mounts += [(mount, None) for secret in secrets if (mount := secret.mount()) is not None]
    mounts += [(agent.mount(position), None) for position, agent in enumerate(agents)]
    op = ExecOp(
        meta=_meta(around, command),
        mounts=(),
        network=around.network,
        security=around.security,
        secret_env=tuple([v for secret in secrets if (v := secret.variable()) is not None]),
        cdi_devices=command.devices,
    )
    return ExecVertex(exec=op, mounts=tuple(mounts), platform=around.platform, about=about), outputs


def _problem(command: Command) -> str:
    if not command.args:
        return "there is no command to run"
    if any(m.target == ROOT for m in command.mounts if isinstance(m, Bind | Cache | Tmpfs)):
        return "nothing can be mounted over the root file system: run on another state instead"
    return ""


def _trees(base: Output | None, command: Command) -> tuple[list[tuple[Mount, Output | None]], dict[str, int]]:
    """Mounts of trees and memory sorted by target; outputs are numbered in that order."""
    mounts: list[tuple[Mount, Output | None]] = []
    outputs: dict[str, int] = {}
    number = 0
    root = Bind(target=ROOT, readonly=command.readonly_root)
    trees = [m for m in command.mounts if isinstance(m, Bind | Cache | Tmpfs)]
    for spec in sorted([root, *trees], key=lambda m: m.target):
        match spec:
            case Bind():
                source = base if spec is root else _tree(spec.source)
                if not spec.has_output:
                    mounts.append((spec.mount(NO_OUTPUT), source))
                    continue
                mounts.append((spec.mount(number), source))
                outputs[spec.target] = number
                number += 1
            case Cache():
                mounts.append((spec.mount(), _tree(spec.base)))
            case Tmpfs():
                mounts.append((spec.mount(), None))
    return mounts, outputs


def _tree(state: State | None) -> Output | None:
    return None if state is None else state.output


def _meta(around: Surroundings, command: Command) -> Meta:
    return Meta(
        args=command.args,
        env=tuple([f"{name}={value}" for name, value in around.environ.flat().items()]),
        cwd=around.cwd,
        user=around.user,
        proxy_env=command.proxy,
        extra_hosts=around.extra_hosts,
        hostname=around.hostname,
        ulimits=around.ulimits,
        cgroup_parent=around.cgroup_parent,
        remove_mount_stubs_recursive=True,
        valid_exit_codes=command.valid_exit_codes,
    )
