"""A stage while its instructions are applied: its state, its image config, its history, and how its steps are called.

Pure: no image is resolved and no file read here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace

from buildengine import platform as platforms
from buildengine.errors import Location, ParseError, UserError
from buildengine.platform import Platform
from buildengine.values import dataclass
from frontends.dockerfile import instructions as ins
from frontends.dockerfile.imageconfig import COMMENT, Config, History, Image
from frontends.dockerfile.lint import Linter
from frontends.dockerfile.options import Options
from frontends.dockerfile.stages import Stage
from frontends.dockerfile.words import Expansion, Lexer
from llb.environ import Environ
from llb.mounts import Secret, Ssh
from llb.patterns import PatternMatcher
from llb.sourcemap import Place, SourceFile
from llb.state import State

NOT_IN_ENVIRONMENT = frozenset(["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"])
COMMAND = "com.docker.dockerfile.v1.command"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all stages of one conversion share. `context_used` collects the paths taken from `context`."""

    options: Options
    lexer: Lexer
    linter: Linter
    source: SourceFile
    global_args: Mapping[str, str]
    context: State
    context_used: set[str]
    ignored: PatternMatcher
    target_platform: Platform
    show_platform: bool = False


@dataclass(slots=True, eq=False, kw_only=True)
class Draft:
    """`args` are the ARGs that were declared, with their values; they are in the state's environment as well.

    `variables` is what ENV says beyond `image`, whose tuple would be copied for every variable.
    """

    stage: Stage
    shared: Shared
    state: State
    image: Image
    platform: Platform
    history: list[History] = field(default_factory=list)
    args: dict[str, str | None] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    base_config: bytes = b""
    absolute_workdir: bool = False
    number: int = 0  # of the step that was named last
    on_build: bool = False
    last: dict[str, Location] = field(default_factory=dict)  # of CMD, ENTRYPOINT, HEALTHCHECK: only the last counts
    asked: list[tuple[Secret | Ssh, Location]] = field(default_factory=list)  # by the commands of this stage alone

    @property
    def env(self) -> Environ:
        return self.state.environ

    @property
    def config(self) -> Config:
        return self.image.config

    def child(self, stage: Stage) -> Draft:
        """A stage that begins where this one ends; its ONBUILD triggers have been taken over as steps."""
        return Draft(
            stage=stage,
            shared=self.shared,
            state=self.state,
            image=replace(self.image, config=replace(self._finished_config(), on_build=())),
            platform=self.platform,
            history=list(self.history),
            args=dict(self.args),
            base_config=self.base_config,
            absolute_workdir=self.absolute_workdir,
        )

    def finished_image(self) -> Image:
        return replace(self.image, config=self._finished_config(), history=tuple(self.history))

    def _finished_config(self) -> Config:
        return replace(self.config, env=self.config.env_with(self.variables))

    # --- what every instruction does ----------------------------------------------------------------------

    def configure(self, config: Config) -> None:
        self.image = replace(self.image, config=config)

    def commit(self, text: str, *, layer: bool = False, suffix: str = "") -> None:
        """One more entry of the history."""
        entry = History(
            created_by=text + suffix, comment=COMMENT, empty_layer=not layer, created=self.shared.options.created
        )
        self.history.append(entry)

    def place(self, instruction: ins.Instruction) -> Place:
        return self.shared.source.at(*instruction.line.ranges)

    def carry(self) -> None:
        """Account for the whole environment being written out once more. Raises ParseError when that is too much."""
        self.shared.lexer.budget.spend(self.env.size)

    def only_last_counts(self, instruction: ins.Instruction) -> None:
        before = self.last.get(instruction.name)
        if before is not None:
            message = (
                f"Multiple {instruction.keyword} instructions should not be used in the same stage because only the "
                "last one will be used"
            )
            self.shared.linter.found("MultipleInstructionsDisallowed", message, before)
        self.last[instruction.name] = instruction.location

    def owner(self, user: str) -> str | None:
        """Who owns what an instruction makes. No file of a Windows image knows its accounts: layers name none."""
        return user if user and self.platform.os != "windows" else None

    # --- variables ----------------------------------------------------------------------------------------

    def expand(self, text: str, instruction: ins.Instruction) -> str:
        return self.checked(self.shared.lexer.process(text, self.env), instruction).text

    def checked(self, found: Expansion, instruction: ins.Instruction) -> Expansion:
        """The expansion; variables that nobody has declared are found by the linter."""
        if found.unmatched:
            undeclared = [n for n in found.unmatched if n not in self.args and n not in NOT_IN_ENVIRONMENT]
            for name in sorted(undeclared):
                suggestion = self.shared.lexer.budget.suggest(name, self.env, prefix="$")
                message = f"Usage of undefined variable '${name}'{suggestion}"
                self.shared.linter.found("UndefinedVar", message, instruction.location)
        return found

    # --- names of steps -----------------------------------------------------------------------------------

    def step_name(self, text: str) -> str:
        """The name of the next step."""
        self.number += self.stage.total > 0
        return self.numbered(text)

    def numbered(self, text: str) -> str:
        """A name for the step that was named last."""
        platform = self._platform_shown() if self.shared.show_platform else ""
        return self.stage.step_name(self.number, text, platform=platform, on_build=self.on_build)

    def _platform_shown(self) -> str:
        target = _declared_target(self.env, self.platform)
        shown = str(self.platform)
        if target is None or (target.os, target.architecture) == (self.platform.os, self.platform.architecture):
            return shown
        if target.os == self.platform.os:
            return f"{shown}->" + "/".join(part for part in (target.architecture, target.variant) if part)
        return f"{shown}->{target}"

    def shown_command(self, text: str, lexer: Lexer, env: Mapping[str, str]) -> str:
        """An instruction's text for a name: keyword in upper case, variables replaced where that works."""
        try:
            text = lexer.expand(text, env)
        except ParseError:
            pass
        keyword, space, rest = text.partition(" ")
        return keyword.upper() + space + rest


def _declared_target(env: Mapping[str, str], base: Platform) -> Platform | None:
    """What a cross-compiling stage says it makes: TARGETPLATFORM, or TARGETOS, TARGETARCH and TARGETVARIANT."""
    if "TARGETPLATFORM" in env:
        try:
            return platforms.parse(env["TARGETPLATFORM"])
        except UserError:
            pass
    os, architecture, variant = (env.get(f"TARGET{part}") for part in ("OS", "ARCH", "VARIANT"))
    if os is None and architecture is None and variant is None:
        return None
    wanted = Platform(os=os or base.os, architecture=architecture or base.architecture, variant=variant or "")
    return platforms.normalize(wanted)


def with_shell(image: Image, argv: Sequence[str]) -> tuple[str, ...]:
    """The argv of the shell form."""
    default = ("cmd", "/S", "/C") if image.os == "windows" else ("/bin/sh", "-c")
    return (*(image.config.shell or default), " ".join(argv))
