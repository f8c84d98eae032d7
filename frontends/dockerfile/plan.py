"""From the instructions of a file to its stages, for one platform: arguments, expanded FROMs, the target. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from buildengine import platform as platforms
from buildengine import reference
from buildengine.errors import ParseError, UserError
from buildengine.platform import Platform
from buildengine.values import dataclass
from frontends.dockerfile import contexts, lint, stages
from frontends.dockerfile import instructions as ins
from frontends.dockerfile.args import global_args, platform_args
from frontends.dockerfile.lint import Linter
from frontends.dockerfile.options import Options
from frontends.dockerfile.stages import Graph, Stage, Step
from frontends.dockerfile.suggest import nearest
from frontends.dockerfile.words import Expansion, Lexer, quote


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`wanted` are the stages to convert, the target the last of them.

    `global_args` are made of the `predefined` ones and of the ARGs before the first FROM, the `declared`.
    """

    graph: Graph
    wanted: tuple[Stage, ...]
    global_args: Mapping[str, str]
    predefined: Mapping[str, str]
    declared: Sequence[ins.Arg]

    @property
    def target(self) -> Stage:
        return self.wanted[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arguments:
    """What FROM lines can use. `declared` are all names, also those without a value."""

    values: Mapping[str, str]
    defaults: Mapping[str, str]
    declared: frozenset[str]


def make(
    instructions: Sequence[ins.Instruction],
    options: Options,
    lexer: Lexer,
    linter: Linter,
    *,
    build_platform: Platform,
    target_platform: Platform,
    every_stage: bool = False,
) -> Plan:
    """`every_stage`: those too that the target does not need. Raises ParseError, UserError."""
    declared, written = stages.group(instructions)
    froms = [start for start, *_ in written if isinstance(start, ins.From)]
    lint.check_stage_names(linter, froms)
    lint.check_casing(linter, [instruction for stage in written for instruction in stage])
    stage_name = options.target or froms[-1].stage_name.lower()
    predefined = platform_args(build_platform, target_platform, stage_name, options.build_args)
    arguments = _arguments(predefined, declared, options, lexer)
    for first in froms:
        _check_default_image(linter, first, arguments, lexer)
    graph = Graph(lexer)
    for number, (start, *rest) in enumerate(written):
        if isinstance(start, ins.From):
            stage = _stage(start, rest, number, arguments, lexer, linter)
            _place_context(stage, options, target_platform)
            graph.add(stage)
            graph.count(stage)
            stage.ignore_cache = options.ignores_cache(stage.name)
    target = graph.target(options.target) if options.target else graph.stages[-1]
    others = [stage for stage in graph.stages if every_stage and stage is not target]
    graph.link()
    return Plan(
        graph=graph,
        wanted=(*others, target),
        global_args=arguments.values,
        predefined=predefined,
        declared=declared,
    )


def _arguments(
    predefined: Mapping[str, str], declared: Sequence[ins.Arg], options: Options, lexer: Lexer
) -> _Arguments:
    values = global_args(predefined, declared, options.build_args, lexer)
    try:
        defaults = global_args(predefined, declared, {}, lexer)
    except ParseError:  # `:?` may insist on a --build-arg
        defaults = values
    names = {pair.key for instruction in declared for pair in instruction.pairs}
    return _Arguments(values=values, defaults=defaults, declared=frozenset(names.union(values)))


def _place_context(stage: Stage, options: Options, platform: Platform) -> None:
    """A named context in the place of a stage: then its own instructions do not count."""
    stage.context = contexts.find(options, stage.name, stage.platform or platform) if stage.name else None
    if stage.context is not None:
        stage.steps = ()


def _stage(
    start: ins.From, rest: Sequence[ins.Instruction], number: int, arguments: _Arguments, lexer: Lexer, linter: Linter
) -> Stage:
    name = start.stage_name.lower()
    try:
        image, unset = _image(start, arguments, lexer, linter)
        platform = _platform(start, arguments, lexer, linter)
    except ParseError as error:
        raise error.located(start.location) from None
    return Stage(
        image=image,
        location=start.location,
        instruction=start,
        name=name,
        label=name or f"stage-{number}",
        platform=platform,
        steps=tuple([Step(instruction=instruction) for instruction in rest]),
        needs={},
        used=set(),
        unset=unset,
    )


def _image(start: ins.From, arguments: _Arguments, lexer: Lexer, linter: Linter) -> tuple[str, str]:
    """The name, and what to say of variables in it that have no value, should it be none."""
    found = lexer.process(start.image, arguments.values)
    _check_declared(lexer, linter, start, found, arguments)
    unset = ""
    if found.unmatched:
        missing = min(found.unmatched)
        close = nearest(missing, arguments.declared)
        unset = f"ARG {missing} has no value before the first FROM" + (f"; did you mean {close}?" if close else "")
    if found.text:
        return found.text, unset
    hint = unset or "name an image, a stage or scratch"
    raise ParseError(f"base name ({start.image}) should not be blank", hint=hint)


def _platform(start: ins.From, arguments: _Arguments, lexer: Lexer, linter: Linter) -> Platform | None:
    if not start.platform:
        return None
    found = lexer.process(start.platform, arguments.values)
    _check_declared(lexer, linter, start, found, arguments)
    _check_platform(linter, start, found, arguments)
    suggest, missing = lexer.budget.suggest, sorted(found.unmatched)
    suggestion = next((close for name in missing if (close := suggest(name, arguments.values))), "")
    if not found.text:
        raise ParseError(
            f"empty platform value from expression {start.platform}{suggestion}", hint="declare it with ARG above"
        )
    try:
        platform = platforms.parse(found.text)
        platforms.check_known(platform)
    except UserError as error:
        raise ParseError(
            f"failed to parse platform {start.platform}: {error.message}{suggestion}", hint=error.hint
        ) from None
    return platform


# --- what the linter says of FROM ---------------------------------------------------------------------------


def _check_declared(lexer: Lexer, linter: Linter, start: ins.From, found: Expansion, arguments: _Arguments) -> None:
    for name in sorted(found.unmatched - arguments.declared):
        suggestion = lexer.budget.suggest(name, arguments.declared)
        linter.found("UndefinedArgInFrom", f"FROM argument '{name}' is not declared{suggestion}", start.location)


def _check_default_image(linter: Linter, start: ins.From, arguments: _Arguments, lexer: Lexer) -> None:
    try:
        reference.normalize(lexer.expand(start.image, arguments.defaults))
    except ParseError:
        return
    except UserError:
        message = f"Default value for ARG {start.image} results in empty or invalid base image name"
        linter.found("InvalidDefaultArgInFrom", message, start.location)


def _check_platform(linter: Linter, start: ins.From, found: Expansion, arguments: _Arguments) -> None:
    if found.matched == {"TARGETPLATFORM"} and not found.unmatched:
        if found.text == arguments.values.get("TARGETPLATFORM"):
            message = (
                f"Setting platform to predefined {start.platform} in FROM is redundant as this is the default behavior"
            )
            linter.found("RedundantTargetPlatform", message, start.location)
        return
    if found.matched or found.unmatched:
        return
    try:
        platform = platforms.parse(found.text)
    except UserError:
        return
    name = start.stage_name.lower()
    if platform.os not in name and platform.architecture not in name:
        message = f"FROM --platform flag should not use constant value {quote(found.text)}"
        linter.found("FromPlatformFlagConstDisallowed", message, start.location)
