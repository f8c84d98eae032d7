"""The lint rules: what each is called, what it says, which are on, and where findings go.

Rules and messages are those of BuildKit's `dockerfile2llb`. Checks that need one instruction or the list of them
are here; the others are made where their facts are known, through `Linter.found`. Pure.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from functools import lru_cache
from types import MappingProxyType

from buildengine.errors import Location, ParseError, UserError
from buildengine.values import dataclass
from frontends.dockerfile import instructions as ins
from frontends.dockerfile import notation
from frontends.dockerfile.lines import Dockerfile
from frontends.dockerfile.words import quote

_DOCS = "https://docs.docker.com/go/dockerfile/rule/"

_DESCRIPTIONS: Mapping[str, str] = MappingProxyType({
    "StageNameCasing": "Stage names should be lowercase",
    "FromAsCasing": "The 'as' keyword should match the case of the 'from' keyword",
    "NoEmptyContinuation": "Empty continuation lines will become errors in a future release",
    "ConsistentInstructionCasing":
        "All commands within the Dockerfile should use the same casing (either upper or lower)",
    "DuplicateStageName": "Stage names should be unique",
    "ReservedStageName": "Reserved words should not be used as stage names",
    "JSONArgsRecommended":
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    "MaintainerDeprecated": "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    "UndefinedArgInFrom": "FROM command must use declared ARGs",
    "WorkdirRelativePath":
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the "
        "base image changes",
    "UndefinedVar": "Variables should be defined before their use",
    "MultipleInstructionsDisallowed":
        "Multiple instructions of the same type should not be used in the same stage",
    "LegacyKeyValueFormat": "Legacy key/value format with whitespace separator should not be used",
    "InvalidBaseImagePlatform": "Base image platform does not match expected target platform",
    "RedundantTargetPlatform":
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    "SecretsUsedInArgOrEnv": "Sensitive data should not be used in the ARG or ENV commands",
    "InvalidDefaultArgInFrom": "Default value for global ARG results in an empty or invalid base image name",
    "FromPlatformFlagConstDisallowed": "FROM --platform flag should not use a constant value",
    "CopyIgnoredFile": "Attempting to Copy file that is excluded by .dockerignore",
    "InvalidDefinitionDescription":
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this "
        "is not intended to be a description comment, add an empty line or comment between the instruction and the "
        "comment.",
    "ExposeProtoCasing": "Protocol in EXPOSE instruction should be lowercase",
    "ExposeInvalidFormat":
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a "
        "future release",
})  # fmt: skip
RULES = tuple(_DESCRIPTIONS)
EXPERIMENTAL = frozenset(["CopyIgnoredFile", "InvalidDefinitionDescription"])
_UNDOCUMENTED = frozenset(["InvalidBaseImagePlatform"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a rule found. `message` is its text alone; `short` is how a build prints it."""

    rule: str
    message: str
    location: Location

    @property
    def short(self) -> str:
        line = self.location.ranges[0].start_line if self.location.ranges else 0
        return f"{self.rule}: {self.message}" + (f" (line {line})" if line else "")

    @property
    def description(self) -> str:
        return _DESCRIPTIONS[self.rule]

    @property
    def url(self) -> str:
        """StageNameCasing -> .../stage-name-casing/"""
        if self.rule in _UNDOCUMENTED:
            return ""
        words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=JSON)", "-", self.rule)
        return f"{_DOCS}{words.lower()}/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`# check=skip=A,B;experimental=all;error=true`"""

    skip: frozenset[str] = frozenset()
    skip_all: bool = False
    experimental: frozenset[str] = frozenset()
    experimental_all: bool = False
    error: bool = False

    def wants(self, rule: str) -> bool:
        if rule in EXPERIMENTAL:
            return self.experimental_all or rule in self.experimental
        return not (self.skip_all or rule in self.skip)


def parse_settings(text: str) -> Settings:
    """Raises UserError."""
    text = text.strip()
    options: dict[str, str] = {}
    for part in text.split(";", 2) if text else ():
        key, equals, value = part.partition("=")
        if not equals or key.strip() not in ("skip", "experimental", "error"):
            shown = part if not equals else key.strip()
            raise UserError(
                f"invalid check option {quote(shown)}",
                hint="write skip=Rule,Rule or skip=all, experimental=..., error=true",
            )
        options[key.strip()] = value.strip()
    skip, experimental = options.get("skip", ""), options.get("experimental", "")
    try:
        error = notation.boolean(options.get("error", "false"))
    except ValueError:
        raise UserError(f"invalid check option {quote('error=' + options['error'])}", hint="write error=true") from None
    return Settings(
        skip=_names(skip),
        skip_all=skip == "all",
        experimental=_names(experimental),
        experimental_all=experimental == "all",
        error=error,
    )


def settings_of(dockerfile: Dockerfile, given: Settings | None) -> Settings:
    """`given`, or else what the file's directive says. Raises ParseError at the directive."""
    directive = dockerfile.directive("check")
    if given is not None or directive is None:
        return given or Settings()
    try:
        return parse_settings(directive.value)
    except UserError as error:
        raise ParseError(
            f"failed to parse check options: {error.message}",
            hint=error.hint,
            locations=(dockerfile.source.at_lines(directive.line, directive.line),),
        ) from None


def _names(text: str) -> frozenset[str]:
    return frozenset() if text in ("", "all") else frozenset(name.strip() for name in text.split(","))


@dataclass(slots=True)
class Linter:
    """Hands findings to `report`, if there is one; remembers which rules were broken."""

    settings: Settings = field(default_factory=Settings)
    report: Callable[[Finding], None] | None = None
    broken: list[str] = field(default_factory=list)

    def found(self, rule: str, message: str, location: Location) -> None:
        if self.report is not None and self.settings.wants(rule):
            self.broken.append(rule)
            self.report(Finding(rule=rule, message=message, location=location))

    def finish(self) -> None:
        """Raises UserError when findings were to be errors and there were some."""
        if self.settings.error and self.broken:
            rules = ", ".join(dict.fromkeys(self.broken))
            raise UserError(f"lint violation found for rules: {rules}", hint="mend them, or remove error=true")


# --- checks that need nothing but the file ----------------------------------------------------------------


def check_lines(linter: Linter, dockerfile: Dockerfile) -> None:
    for line in dockerfile.empty_continuations:
        linter.found("NoEmptyContinuation", "Empty continuation line", dockerfile.source.at_lines(line, line))


def checked(linter: Linter, instructions: Iterable[ins.Instruction]) -> list[ins.Instruction]:
    """The instructions, each looked at as it comes: so what is found before a mistake is told."""
    found: list[ins.Instruction] = []
    for instruction in instructions:
        check_instruction(linter, instruction)
        found.append(instruction)
    return found


def check_instruction(linter: Linter, instruction: ins.Instruction) -> None:
    """What one instruction shows by itself, when it is parsed."""
    match instruction:
        case ins.Maintainer():
            message = "Maintainer instruction is deprecated in favor of using label"
            linter.found("MaintainerDeprecated", message, instruction.location)
        case ins.From():
            _check_from(linter, instruction)
        case ins.Arg():
            _check_description(linter, instruction, "ARG", [pair.key for pair in instruction.pairs])


def _check_from(linter: Linter, instruction: ins.From) -> None:
    name, keyword, alias = instruction.stage_name, instruction.keyword, instruction.as_keyword
    if name != name.lower():
        linter.found("StageNameCasing", f"Stage name '{name}' should be lowercase", instruction.location)
    in_case = keyword.islower() or keyword.isupper()
    if alias and in_case and alias != (alias.lower() if keyword.islower() else alias.upper()):
        message = f"'{alias}' and '{keyword}' keywords' casing do not match"
        linter.found("FromAsCasing", message, instruction.location)
    if name:
        _check_description(linter, instruction, "FROM", [name.lower()])


def _check_description(linter: Linter, instruction: ins.Instruction, name: str, keys: Sequence[str]) -> None:
    comments = instruction.line.comments
    if comments and comments[-1].split(" ")[0] not in keys:
        example = keys[0] if len(keys) == 1 else "<arg_key>"
        message = f"Comment for {name} should follow the format: `# {example} <description>`"
        linter.found("InvalidDefinitionDescription", message, instruction.location)


def check_stage_names(linter: Linter, stages: Sequence[ins.From]) -> None:
    seen: set[str] = set()
    for stage in stages:
        name = stage.stage_name.lower()
        if name in ("context", "scratch"):
            message = f"Stage name should not use the same name as reserved stage {quote(name)}"
            linter.found("ReservedStageName", message, stage.location)
        if name and name in seen:
            message = f"Duplicate stage name {quote(name)}, stage names should be unique"
            linter.found("DuplicateStageName", message, stage.location)
        seen.add(name)


def check_casing(linter: Linter, instructions: Sequence[ins.Instruction]) -> None:
    """All keywords in one case, that of the majority. Global ARGs do not count."""
    cases = Counter(i.keyword.islower() for i in instructions if i.keyword.islower() or i.keyword.isupper())
    lower = cases[True] > cases[False]
    for instruction in instructions:
        keyword = instruction.keyword
        if keyword != (keyword.lower() if lower else keyword.upper()):
            case = "lowercase" if lower else "uppercase"
            message = f"Command '{keyword}' should match the case of the command majority ({case})"
            linter.found("ConsistentInstructionCasing", message, instruction.location)


_SECRET_WORDS = frozenset(
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"]
)


@lru_cache
def names_a_secret(key: str) -> bool:
    """api_key, DATABASE_PASSWORD, AUTH: one of the words between underscores, unless another is `public`."""
    words = set(key.lower().split("_"))
    return bool(words & _SECRET_WORDS) and "public" not in words
