"""The Dockerfile frontend: loads what it needs through the gateway, and gives one definition for each platform.

The edge of this package: whatever awaits is here, in `source` and in `loading`. All else is pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from buildengine.errors import Location, ParseError, UserError
from buildengine.platform import Platform
from buildengine.values import dataclass
from frontends.dockerfile import directives, lines, lint, options, parse, plan, source
from frontends.dockerfile.convert.conversion import Converted, convert
from frontends.dockerfile.convert.draft import Shared
from frontends.dockerfile.convert.pending import pending_local
from frontends.dockerfile.imageconfig import to_json
from frontends.dockerfile.instructions import Instruction
from frontends.dockerfile.lint import Finding, Linter
from frontends.dockerfile.loading import Loader
from frontends.dockerfile.options import Options
from frontends.dockerfile.source import Context, Definition
from frontends.dockerfile.together import gather
from frontends.dockerfile.words import Lexer
from frontends.gateway import FrontendRequest, FrontendResult, Gateway, PlatformResult
from llb.patterns import PatternMatcher
from llb.state import State, local

_OURS = ("docker/dockerfile", "docker/dockerfile-upstream")  # the images of this very language


class DockerfileFrontend:
    """`frontends.gateway.Frontend`"""

    async def build(self, gateway: Gateway, request: FrontendRequest) -> FrontendResult:
        """Raises ParseError, UserError, SourceError."""
        read = options.read(request.options)
        if read.request:
            raise UserError(f"request {read.request!r} is not supported yet", hint="only builds are")
        if read.multi_platform is False and len(request.platforms) > 1:
            raise UserError("conflicting config: returning multiple target platforms is not allowed")
        context = await source.find_context(gateway, request, read)
        definition = await source.load_definition(gateway, context, read)
        _check_syntax(definition, read)
        building = _Building(gateway=gateway, request=request, options=read, context=context, definition=definition)
        return await building.run()


def _check_syntax(definition: Definition, read: Options) -> None:
    """The syntax directive asks for a frontend image. Ours is built in; others cannot be run yet."""
    asked = directives.detect_syntax(definition.file.data)
    wanted = read.syntax.partition(" ")[0] or (asked.image if asked else "")
    if not wanted:
        return
    repository = wanted.partition("@")[0].removeprefix("docker.io/").partition(":")[0]
    if repository not in _OURS:
        error = UserError(
            f"frontend image {wanted} cannot be used: only the built-in Dockerfile frontend can",
            hint="remove the syntax directive, or write # syntax=docker/dockerfile:1",
        )
        line = asked.line if asked and not read.syntax else None
        raise error.located(*([definition.file.at_lines(line, line)] if line else []))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Building:
    """One build of one file."""

    gateway: Gateway
    request: FrontendRequest
    options: Options
    context: Context
    definition: Definition

    @property
    def multi_platform(self) -> bool:
        asked = self.options.multi_platform
        return len(self.request.platforms) > 1 if asked is None else asked

    async def run(self) -> FrontendResult:
        dockerfile = lines.split(self.definition.file)
        linter = Linter(settings=self._lint_settings(dockerfile), report=self._warn)
        lint.check_lines(linter, dockerfile)
        instructions: list[Instruction] = []
        for instruction in parse.instructions(dockerfile):
            lint.check_instruction(linter, instruction)
            instructions.append(instruction)
        ignored = await source.load_ignored(self.gateway, self.context, self.definition, self.options)
        quiet = Linter(settings=linter.settings)  # what holds for one platform would be said again for each
        lexer = Lexer(escape=dockerfile.escape)
        converted = await gather([
            partial(self._convert, instructions, lexer, ignored, platform, quiet if position else linter)
            for position, platform in enumerate(self.request.platforms)
        ])  # fmt: skip
        linter.finish()
        return self._result(converted)

    def _lint_settings(self, dockerfile: lines.Dockerfile) -> lint.Settings:
        directive = dockerfile.directive("check")
        if self.options.lint is not None or directive is None:
            return self.options.lint or lint.Settings()
        try:
            return lint.parse_settings(directive.value)
        except UserError as error:
            raise ParseError(
                f"failed to parse check options: {error.message}",
                hint=error.hint,
                locations=(dockerfile.source.at_lines(directive.line, directive.line),),
            ) from None

    def _warn(self, finding: Finding) -> None:
        location: Location = finding.location
        self.gateway.warn(finding.short, detail=[finding.description], url=finding.url, location=location)

    async def _convert(
        self,
        instructions: Sequence[Instruction],
        lexer: Lexer,
        ignored: tuple[str, ...],
        platform: Platform,
        linter: Linter,
    ) -> Converted:
        made = plan.make(
            instructions,
            self.options,
            lexer,
            linter,
            build_platform=self.request.build_platform,
            target_platform=platform,
        )
        loader = Loader(
            gateway=self.gateway,
            request=self.request,
            options=self.options,
            linter=linter,
            source=self.definition.mapped,
            graph=made.graph,
            target_platform=platform,
            show_platform=self.multi_platform,
        )
        await loader.load(made.target)
        return convert(made.graph, made.target, self._shared(made, lexer, linter, ignored, platform))

    def _shared(
        self, made: plan.Plan, lexer: Lexer, linter: Linter, ignored: tuple[str, ...], platform: Platform
    ) -> Shared:
        used: set[str] = set()
        return Shared(
            options=self.options,
            lexer=lexer,
            linter=linter,
            source=self.definition.mapped,
            global_args=made.global_args,
            context=self._context_state(ignored, used),
            context_used=used,
            ignored=PatternMatcher(ignored),
            target_platform=platform,
            show_platform=self.multi_platform,
        )

    def _context_state(self, ignored: tuple[str, ...], used: set[str]) -> State:
        if self.context.tree is not None:
            return self.context.tree

        def make(follow: tuple[str, ...]) -> State:
            return local(
                source.CONTEXT,
                exclude=ignored,
                follow_paths=follow,
                shared_key_hint=source.CONTEXT,
                session=self.options.local_sessions.get(source.CONTEXT, ""),
                name="[internal] load build context",
            )

        return pending_local(make, used)

    def _result(self, converted: Sequence[Converted]) -> FrontendResult:
        results: list[PlatformResult] = []
        for platform, found in zip(self.request.platforms, converted, strict=True):
            definition = found.state.marshal(platform)
            results.append(
                PlatformResult(
                    platform=platform,
                    definition=None if definition.is_scratch else definition,
                    config=to_json(found.image),
                    base_config=found.base_config,
                )
            )
        return FrontendResult(results=tuple(results), multi_platform=self.multi_platform)
