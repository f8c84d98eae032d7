"""The linter without an engine: a Dockerfile is converted as if nothing were known of its base images.

So two rules are left to a build: whether a base image is for another platform than was wanted, and whether a variable
is undefined where the base may have set it. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from buildengine import platform as platforms
from buildengine.builder import PYTHON, frontend_of
from buildengine.errors import BuildError, UserError
from buildengine.values import dataclass
from frontends.dockerfile import forwarding, imageconfig, lines, lint, options, parse, plan
from frontends.dockerfile.contextloading import SCRATCH, Loaded
from frontends.dockerfile.convert.conversion import convert
from frontends.dockerfile.convert.draft import Shared
from frontends.dockerfile.lint import Finding, Linter
from frontends.dockerfile.options import Options
from frontends.dockerfile.plan import Plan
from frontends.dockerfile.stages import Stage
from frontends.dockerfile.words import Lexer
from llb import sourcemap
from llb.patterns import PatternMatcher
from llb.sources import local
from llb.state import scratch


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """`error` is what ended the linting before the file did, or a `# check=error=true`."""

    findings: tuple[Finding, ...]
    error: BuildError | None = None


def check(file: lines.SourceFile, given: Mapping[str, str], ignored: Sequence[str] = ()) -> Checked:
    """Every stage, or what the target of the options needs. `ignored` are the patterns of the ignore file."""
    found: list[Finding] = []
    linter = Linter(report=found.append)
    made: list[Plan] = []
    error: BuildError | None = None
    try:
        _convert(file, options.read(given), ignored, linter, made.append)
    except BuildError as problem:
        error = problem
    certain = tuple(finding for finding in found if not any(_depends_on_base(finding, each) for each in made))
    try:
        Linter(settings=linter.settings, broken=[finding.rule for finding in certain]).finish()
    except BuildError as problem:
        error = error or problem
    return Checked(findings=certain, error=error)


def _convert(
    file: lines.SourceFile, read: Options, ignored: Sequence[str], linter: Linter, planned: Callable[[Plan], None]
) -> None:
    """Raises BuildError; `planned` is told of the stages before."""
    _refuse_other_languages(file, read)
    dockerfile = lines.split(file)
    linter.settings = lint.settings_of(dockerfile, read.lint)
    lint.check_lines(linter, dockerfile)
    lexer, here = Lexer(escape=dockerfile.escape), platforms.local()
    made = plan.make(
        lint.checked(linter, parse.instructions(dockerfile)),
        read,
        lexer,
        linter,
        build_platform=here,
        target_platform=here,
        every_stage=not read.target,
    )
    planned(made)
    _load(made)
    shared = Shared(
        options=read,
        lexer=lexer,
        linter=linter,
        source=sourcemap.SourceFile(filename=file.filename, data=file.data),
        global_args=made.global_args,
        context=local("context"),
        context_used=set(),
        ignored=PatternMatcher(tuple(ignored)),
        target_platform=here,
    )
    convert(made.graph, made.wanted, shared)


def _refuse_other_languages(file: lines.SourceFile, read: Options) -> None:
    """What another frontend reads is no Dockerfile, however much it may look like one."""
    other = forwarding.other_language(file, read, platforms.local())
    name = PYTHON if frontend_of(file.filename) == PYTHON else other.image if other else ""
    if name:
        error = UserError(
            f"this is read by the frontend {name}, and only Dockerfiles can be linted",
            hint="pybuild build --check asks that frontend" if other else None,
        )
        raise error.located(*((other.location,) if other and other.location else ()))


def _load(made: Plan) -> None:
    """Nothing is known of what stages start from."""
    here = platforms.local()
    while True:
        for stage in made.graph.pending(*made.wanted):
            stage.loaded = Loaded(state=scratch(), image=imageconfig.empty(here), platform=here)
        if not made.graph.read_triggers(*made.wanted):
            return


def _depends_on_base(finding: Finding, made: Plan) -> bool:
    if finding.rule != "UndefinedVar" or not finding.location.ranges:
        return False
    line = finding.location.ranges[0].start_line
    stage = next((s for s in made.graph.stages if line in _lines(s)), None)
    while stage is not None and stage.base is not None:
        stage = stage.base
    return stage is not None and stage.image != SCRATCH


def _lines(stage: Stage) -> Iterator[int]:
    for step in stage.steps:
        yield step.instruction.line.first
