"""What a Dockerfile says, one frozen value for each instruction, before any variable is expanded.

The classes follow the shapes of the grammar: instructions of one shape share their fields and differ in name only.
Every value keeps the logical line that it came from: for locations, history texts, descriptions. Pure data.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

from buildengine.errors import Location
from buildengine.values import dataclass
from frontends.dockerfile.lines import Heredoc, LogicalLine
from frontends.dockerfile.terminals import SPACES


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """`keyword` is as written, in its own case."""

    name: ClassVar[str] = ""
    line: LogicalLine
    keyword: str

    @property
    def text(self) -> str:
        """The instruction as written, on one line and without heredoc bodies."""
        return self.line.text.strip(SPACES)

    @property
    def location(self) -> Location:
        return self.line.location


# --- one text -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TextInstruction(Instruction):
    argument: str


class Workdir(TextInstruction):
    __slots__ = ()
    name = "WORKDIR"


class User(TextInstruction):
    __slots__ = ()
    name = "USER"


class StopSignal(TextInstruction):
    __slots__ = ()
    name = "STOPSIGNAL"


class Maintainer(TextInstruction):
    __slots__ = ()
    name = "MAINTAINER"


class OnBuild(TextInstruction):
    """`argument` is an instruction's text, with the bodies of its heredocs behind it."""

    __slots__ = ()
    name = "ONBUILD"


# --- a list -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ListInstruction(Instruction):
    arguments: tuple[str, ...]


class Expose(ListInstruction):
    __slots__ = ()
    name = "EXPOSE"


class Volume(ListInstruction):
    __slots__ = ()
    name = "VOLUME"


class Shell(ListInstruction):
    __slots__ = ()
    name = "SHELL"


# --- pairs --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyValue:
    """`value` None: a name alone, as only ARG has it. `legacy`: written `ENV key value`, without `=`."""

    key: str
    value: str | None
    legacy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PairInstruction(Instruction):
    pairs: tuple[KeyValue, ...]


class Arg(PairInstruction):
    __slots__ = ()
    name = "ARG"


class Env(PairInstruction):
    __slots__ = ()
    name = "ENV"


class Label(PairInstruction):
    __slots__ = ()
    name = "LABEL"


# --- a command ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandInstruction(Instruction):
    """The exec form, argv, or the `shell` form: one text (or none) that the stage's shell gets."""

    argv: tuple[str, ...]
    shell: bool


class Cmd(CommandInstruction):
    __slots__ = ()
    name = "CMD"


class Entrypoint(CommandInstruction):
    __slots__ = ()
    name = "ENTRYPOINT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck(CommandInstruction):
    """Times are in nanoseconds, 0 for the default. `disabled`: HEALTHCHECK NONE."""

    name = "HEALTHCHECK"
    disabled: bool = False
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RawMount:
    """`--mount=...` cut at its commas. `source_stage` is its `from`, the one key that takes no variables."""

    fields: tuple[str, ...]
    source_stage: str = ""
    span: tuple[int, int] | None = field(default=None, repr=False, compare=False)  # where it stands in the line's text


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    name: str
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(CommandInstruction):
    name = "RUN"
    mounts: tuple[RawMount, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    devices: tuple[Device, ...] = ()


# --- from here to there -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer(Instruction):
    """What COPY and ADD share. `inline` are heredocs that become files named like them."""

    sources: tuple[str, ...]
    destination: str
    inline: tuple[Heredoc, ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(Transfer):
    name = "COPY"
    source_stage: str = ""  # --from
    parents: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(Transfer):
    name = "ADD"
    checksum: str = ""
    keep_git_dir: bool | None = None
    unpack: bool | None = None


# --- a stage ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class From(Instruction):
    """`stage_name` is as written; names are compared in lower case."""

    name = "FROM"
    image: str
    stage_name: str = ""
    platform: str = ""
    as_keyword: str = ""

    @property
    def description(self) -> str:
        return description(self.line, self.stage_name.lower())


def description(line: LogicalLine, name: str) -> str:
    """What a comment above the line says of `name`: `# name what it is for`."""
    if not name:
        return ""
    return next((c.removeprefix(name + " ") for c in line.comments if c.startswith(name + " ")), "")
