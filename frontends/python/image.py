"""An image to be: a tree, and the image config that goes with it. Immutable, as states are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Unpack

from buildengine.attestation import Claim
from buildengine.errors import UserError
from buildengine.platform import Platform
from buildengine.units import timestamp
from buildengine.values import dataclass
from frontends.dockerfile import imageconfig
from frontends.dockerfile.imageconfig import Config, Health, History
from llb import actions, paths
from llb.actions import Actions
from llb.annotations import Annotations
from llb.mounts import AnyMount
from llb.ops import EMPTY, NetMode, SecurityMode
from llb.state import SHELL, State, scratch

_PREDICATE = "predicate.json"
_SECOND = 10**9  # nanoseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Attested:
    """Something that is attested of an image: its content is in the tree `state`."""

    claim: Claim
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A tree (`state`) with its image config (`document`).

    `Context.image` gives one for an image of a registry, `Image.of` makes one of a tree. Every method gives a new one,
    and those that a State has too mean the same here: `with_env`, `with_dir` and `with_user` count for the commands
    that follow and for the containers of the image.

    >>> base = Image.of(scratch()).with_env("PORT", "80").with_entrypoint("/app")
    >>> base.file(actions.mkfile("/app", b"...", mode=0o755)).config.entrypoint
    ('/app',)

    `base_config` is the config of the image that this one is based on, as it was, b"" where there is none.
    """

    state: State = field(default_factory=State)
    document: imageconfig.Image = field(default_factory=imageconfig.Image)
    base_config: bytes = b""
    attested: tuple[Attested, ...] = ()

    @classmethod
    def of(cls, state: State) -> Image:
        """A tree with a config that says what the state carries: its environment, directory, user and platform."""
        platform = state.platform
        document = imageconfig.empty(platform) if platform else imageconfig.Image()
        made = cls(state=state, document=document)
        config = replace(document.config, working_dir=state.cwd, user=state.user)
        return made._with(replace(config, env=config.env_with(state.environ.flat())))

    @classmethod
    def from_config(cls, state: State, config: bytes) -> Image:
        """A tree with a config as JSON; commands get its environment and directory. Raises UserError."""
        document = imageconfig.parse(config)
        return cls(state=state.with_image_config(config), document=document, base_config=config)

    @property
    def config(self) -> Config:
        """What its containers start with: user, env, entrypoint, cmd, labels, ..."""
        return self.document.config

    @property
    def platform(self) -> Platform | None:
        """That of its config, else that of its state; None: whatever it is built for."""
        return self.document.platform or self.state.platform

    # --- the tree --------------------------------------------------------------------------------------------

    def on(self, state: State) -> Image:
        """This config on another tree.

        >>> base.on(llb.merge([base.state, extra]))    # doctest: +SKIP
        """
        return replace(self, state=state)

    def run(
        self,
        command: str | Sequence[str],
        *,
        mounts: Sequence[AnyMount] = (),
        env: Mapping[str, str] = EMPTY,
        cwd: str = "",
        user: str | None = None,
        network: NetMode | None = None,
        security: SecurityMode | None = None,
        shell: Sequence[str] = SHELL,
        **annotations: Unpack[Annotations],
    ) -> Image:
        """After a command, see `State.run`. What it leaves in a mount, `state.run(...).mount(target)` gives."""
        ran = self.state.run(
            command,
            mounts=mounts,
            env=env,
            cwd=cwd,
            user=user,
            network=network,
            security=security,
            shell=shell,
            **annotations,
        )
        return self.on(ran.root)

    def file(self, steps: Actions, **annotations: Unpack[Annotations]) -> Image:
        """After a chain of file actions, see `State.file`."""
        return self.on(self.state.file(steps, **annotations))

    # --- the config ------------------------------------------------------------------------------------------

    def with_env(self, name: str, value: str) -> Image:
        """With an environment variable."""
        config = replace(self.config, env=self.config.env_with({name: value}))
        return replace(self, state=self.state.with_env(name, value))._with(config)

    def with_dir(self, path: str) -> Image:
        """In another working directory; a relative one starts at the current one."""
        moved = self.state.with_dir(path)
        return replace(self, state=moved)._with(replace(self.config, working_dir=moved.cwd))

    def with_user(self, user: str) -> Image:
        """As another user, `user[:group]` by name or number."""
        return replace(self, state=self.state.with_user(user))._with(replace(self.config, user=user))

    def with_entrypoint(self, *argv: str) -> Image:
        """What a container runs; the base image's command goes, since it was meant for another program."""
        return self._with(replace(self.config, entrypoint=argv, cmd=()))

    def with_cmd(self, *argv: str) -> Image:
        """The default arguments of the entrypoint, or without one the command itself."""
        return self._with(replace(self.config, cmd=argv))

    def with_label(self, name: str, value: str) -> Image:
        """With a label, `org.opencontainers.image.source` or any other."""
        return self.with_labels({name: value})

    def with_labels(self, labels: Mapping[str, str]) -> Image:
        """With these labels besides those that are there."""
        return self._with(replace(self.config, labels={**self.config.labels, **labels}))

    def with_port(self, port: str) -> Image:
        """A port that its containers listen on, `80`, `80/tcp` or `53/udp`."""
        number, _, protocol = port.partition("/")
        if not number.isascii() or not number.isdigit() or not 0 < int(number[:6]) < 65536:
            raise UserError(f"invalid port {port!r}", hint="e.g. 80, 80/tcp or 53/udp")
        ports = self.config.exposed_ports | {f"{int(number)}/{protocol or 'tcp'}"}
        return self._with(replace(self.config, exposed_ports=ports))

    def with_volume(self, path: str) -> Image:
        """A directory whose contents are not the container's."""
        return self._with(replace(self.config, volumes=self.config.volumes | {paths.resolve(self.state.cwd, path)}))

    def with_stop_signal(self, signal: str) -> Image:
        """What ends a container, `SIGTERM` or a number."""
        return self._with(replace(self.config, stop_signal=signal))

    def with_health_check(
        self, *argv: str, interval: float = 0, timeout: float = 0, start_period: float = 0, retries: int = 0
    ) -> Image:
        """A command that tells whether a container is well; none turns off that of the base image. Times in seconds,
        0: whatever the container runtime takes."""
        health = Health(
            test=("CMD", *argv) if argv else ("NONE",),
            interval=int(interval * _SECOND),
            timeout=int(timeout * _SECOND),
            start_period=int(start_period * _SECOND),
            retries=retries,
        )
        return self._with(replace(self.config, health=health))

    def with_author(self, author: str) -> Image:
        """Who is to be asked about it, as free text."""
        return replace(self, document=replace(self.document, author=author))

    def with_history(self, created_by: str, *, created: float | None = None) -> Image:
        """With one more entry of its history, for its last layer: what has made it, and when, in seconds since the
        epoch. An image whose files do not depend on when they were made is then the same whenever it is built."""
        entry = History(created_by=created_by, created=None if created is None else timestamp(created))
        return replace(self, document=replace(self.document, history=(*self.document.history, entry)))

    def _with(self, config: Config) -> Image:
        return replace(self, document=replace(self.document, config=config))

    # --- what is attested of it ------------------------------------------------------------------------------

    def attest(self, predicate_type: str, predicate: bytes | State, *, path: str = _PREDICATE) -> Image:
        """With an in-toto predicate of this type about it: JSON, or the file `path` of a tree that a step makes.

        >>> image.attest("https://spdx.dev/Document", scanner.run("scan > /sbom.json"), path="/sbom.json")
        ... # doctest: +SKIP
        """
        is_tree = isinstance(predicate, State)
        tree = predicate if isinstance(predicate, State) else scratch().file(actions.mkfile(f"/{path}", predicate))
        claim = Claim(predicate_type=predicate_type, path=path if is_tree else f"/{path.lstrip('/')}")
        return replace(self, attested=(*self.attested, Attested(claim=claim, state=tree)))
