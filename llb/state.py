"""The builder of LLB: immutable states, each a file system and what the next command on it will inherit.

>>> import llb
>>> base = llb.image("golang").with_dir("/src").with_env("CGO_ENABLED", "0")
>>> context = llb.local("context", exclude=[".git"])
>>> built = base.file(copy(context, ".", ".")).run("make", mounts=[Cache(target="/root/.cache")])
>>> result = scratch().file(copy(built, "out/app", "/app"))
>>> len(result.marshal().ops)
6

Every method gives a new state; a state can be used as often as you like, and what is said twice is built once.
Nothing happens until an engine solves the definition that `State.marshal` gives. Whatever adds an operation takes
the keywords of `Annotations`, which are no part of its identity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from types import MappingProxyType
from typing import Unpack

from buildengine import platform as platforms
from buildengine.errors import InvalidDefinition
from buildengine.platform import Platform
from buildengine.values import dataclass
from llb.actions import Actions, copy, mkdir, mkfile, named_owners, resolved, rm, symlink
from llb.annotations import Annotations, about
from llb.definition import Definition
from llb.environ import Environ
from llb.execution import Command, Surroundings, exec_vertex
from llb.marshal import marshal
from llb.mounts import AnyMount, Bind, Cache, Secret, Ssh, Tmpfs
from llb.ops import EMPTY, CDIDevice, HostIP, NetMode, ProxyEnv, SecurityMode, Ulimit
from llb.vertices import DefinitionVertex, DiffVertex, FileVertex, MergeVertex, Output, Target, Vertex

__all__ = [
    "Actions", "Annotations", "Bind", "Cache", "ExecState", "Secret", "Ssh", "State", "Tmpfs",
    "copy", "diff", "merge", "mkdir", "mkfile", "rm", "scratch", "symlink",
]  # fmt: skip

SHELL = ("/bin/sh", "-c")


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A file system (`output`, None is empty) and the surroundings of the commands that will run on it."""

    output: Output | None = None
    around: Surroundings = field(default_factory=Surroundings)

    # --- what the state carries -------------------------------------------------------------------------

    @property
    def environ(self) -> Environ:
        return self.around.environ

    @property
    def cwd(self) -> str:
        return self.around.cwd

    @property
    def user(self) -> str:
        return self.around.user

    @property
    def platform(self) -> Platform | None:
        return self.around.platform

    def with_env(self, name: str, value: str) -> State:
        """With an environment variable set.

        >>> scratch().with_env("A", "1").with_env("B", "2").with_env("A", "3").environ
        Environ({'B': '2', 'A': '3'})
        """
        return self._with(self.around.with_env({name: value}))

    def with_dir(self, path: str) -> State:
        """In another directory; a relative one starts at the current one. It need not exist."""
        return self._with(self.around.with_dir(path))

    def with_user(self, user: str) -> State:
        """As another user, `user[:group]` by name or number."""
        return self._with(replace(self.around, user=user))

    def with_platform(self, platform: Platform | None) -> State:
        """For another platform: commands run for it, the tree stays what it is."""
        return self._with(replace(self.around, platform=platform))

    def with_hostname(self, hostname: str) -> State:
        return self._with(replace(self.around, hostname=hostname))

    def with_network(self, network: NetMode) -> State:
        """With another network for commands; HOST needs the user's `--allow network.host`."""
        return self._with(replace(self.around, network=network))

    def with_security(self, security: SecurityMode) -> State:
        """With other privileges for commands; INSECURE needs the user's `--allow security.insecure`."""
        return self._with(replace(self.around, security=security))

    def with_extra_host(self, host: str, ip: str) -> State:
        """With one more line in /etc/hosts."""
        return self._with(replace(self.around, extra_hosts=(*self.around.extra_hosts, HostIP(host=host, ip=ip))))

    def with_ulimit(self, name: str, soft: int, hard: int) -> State:
        return self._with(replace(self.around, ulimits=(*self.around.ulimits, Ulimit(name=name, soft=soft, hard=hard))))

    def with_cgroup_parent(self, cgroup: str) -> State:
        return self._with(replace(self.around, cgroup_parent=cgroup))

    def with_image_config(self, config: bytes) -> State:
        """With the environment, directory and platform of an image config (not its user). Raises UserError."""
        return self._with(self.around.with_image_config(config))

    def with_surroundings_of(self, other: State) -> State:
        """This tree with everything else that `other` carries."""
        return self._with(other.around)

    def _with(self, around: Surroundings) -> State:
        return State(output=self.output, around=around)

    def _on(self, output: Output | None) -> State:
        return State(output=output, around=self.around)

    # --- what is done to it -----------------------------------------------------------------------------

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
        platform: Platform | None = None,
        shell: Sequence[str] = SHELL,
        readonly_root: bool = False,
        proxy: ProxyEnv | None = None,
        devices: Sequence[CDIDevice] = (),
        valid_exit_codes: Sequence[int] = (),
        **annotations: Unpack[Annotations],
    ) -> ExecState:
        """After a command: text for the shell, or a list of arguments.

        `env`, `cwd`, `user`, `network`, `security` and `platform` are for this command only.

        >>> import llb
        >>> llb.image("busybox").run(["true"]).run("echo $GREETING > /greeting", env={"GREETING": "hello"}).cwd
        '/'
        """
        around = self.around.changed(env, cwd, user, network, security, platform)
        what = Command(
            args=(*shell, command) if isinstance(command, str) else tuple(command),
            mounts=tuple(mounts),
            readonly_root=readonly_root,
            proxy=proxy,
            devices=tuple(devices),
            valid_exit_codes=tuple(valid_exit_codes),
        )
        vertex, outputs = exec_vertex(self.output, around, what, about(annotations))
        root = self.output if readonly_root else Output(vertex=vertex, index=outputs["/"])
        return ExecState(output=root, around=self.around, results=_results(mounts, vertex, outputs))

    def file(self, actions: Actions, **annotations: Unpack[Annotations]) -> State:
        """After a chain of file actions, which together are one operation.

        >>> import llb
        >>> llb.image("busybox").file(mkdir("app").mkfile("app/motd", b"hello")).output.index
        0
        """
        said = about(annotations)
        steps = tuple([resolved(step, self.cwd) for step in actions.steps])
        names = [name for step in steps for name in named_owners(step)]
        if not steps or (names and self.output is None):
            problem = f"owner {names[0]!r} is a name, and scratch has no users" if steps else "there is no file action"
            raise InvalidDefinition(problem, hint="use a numeric id" if steps else None).located(
                *[place.location for place in said.places]
            )
        return self._on(Output(vertex=FileVertex(base=self.output, steps=steps, about=said)))

    # --- what comes of it -------------------------------------------------------------------------------

    def marshal(self, platform: Platform | None = None, *, unique: str = "", require: Sequence[str] = ()) -> Definition:
        """The definition whose result is this tree; the same state always gives the same bytes.

        `platform` is for everything that has none of its own: this host's, unless given. `unique` keeps local
        directories of different clients apart that have one name (`local.unique`); pass what identifies the client.
        """
        target = Target(platform=platform or platforms.local(), unique=unique, require=tuple(require))
        return marshal(self.output, target)

    @classmethod
    def from_definition(cls, definition: Definition) -> State:
        """The result of a definition that somebody else made; its operations keep their bytes and digests."""
        if definition.is_scratch:
            return cls()
        vertex = DefinitionVertex.of(definition)
        return cls(output=Output(vertex=vertex, index=vertex.root.index), around=Surroundings(platform=vertex.platform))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecState(State):
    """What a command leaves behind: the changed root, as which it can be used, and the changed mounts."""

    results: Mapping[str, State] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def root(self) -> State:
        return self._on(self.output)

    def mount(self, target: str) -> State:
        """What the command left in a bind mount; a read-only one is as it was. Raises InvalidDefinition.

        >>> import llb
        >>> build = llb.image("golang").run("go build -o /out/app", mounts=[Bind(target="/out")])
        >>> build.mount("/out").output.index
        1
        """
        state = self.results.get(target)
        if state is None:
            raise InvalidDefinition(f"mount {target} has no result", hint="only bind mounts with an output have one")
        return state


def _results(mounts: Sequence[AnyMount], vertex: Vertex, outputs: Mapping[str, int]) -> Mapping[str, State]:
    """What the bind mounts became, by target; a read-only one is what it was."""
    results: dict[str, State] = {}
    for mount in mounts:
        if isinstance(mount, Bind) and (mount.has_output or mount.readonly):
            was = mount.source or State()
            now = was._on(Output(vertex=vertex, index=outputs[mount.target])) if mount.has_output else was
            results[mount.target] = now
    return MappingProxyType(results)


# --- the empty tree, and several in one ---------------------------------------------------------------------


def scratch() -> State:
    """The empty tree."""
    return State()


def merge(layers: Sequence[State], **annotations: Unpack[Annotations]) -> State:
    """The trees on top of each other, the last one topmost; it carries what the first carries.

    >>> merge([scratch(), scratch()]).output is None
    True
    """
    filled = [layer for layer in layers if layer.output is not None]
    if len(filled) < 2:
        return filled[0] if filled else scratch()
    outputs = tuple([layer.output for layer in filled if layer.output is not None])
    return filled[0]._on(Output(vertex=MergeVertex(layers=outputs, about=about(annotations))))


def diff(lower: State, upper: State, **annotations: Unpack[Annotations]) -> State:
    """What has to be laid on `lower` to get `upper`; it carries what `lower` carries."""
    if lower.output is None:
        return upper
    vertex = DiffVertex(lower=lower.output, upper=upper.output, about=about(annotations))
    return lower._on(Output(vertex=vertex))
