"""The Dockerfile frontend: loads what it needs through the gateway, and gives one definition for each platform.

The edge of this package: whatever awaits is here, in `source` and in `loading`. All else is pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from buildengine.builder import PYTHON, asks_to_attest, frontend_of
from buildengine.errors import (
    BuildError,
    Unsupported,
    UserError,
)
from buildengine.events import WarningEvent
from buildengine.platform import Platform
from buildengine.values import dataclass
from frontends.dockerfile import forwarding, lines, lint, options, parse, plan, source, stages
from frontends.dockerfile import instructions as ins
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
from frontends.gateway import Attestation, FrontendRequest, FrontendResult, Gateway, PlatformResult
from llb.patterns import PatternMatcher
from llb.sources import local
from llb.state import State

if TYPE_CHECKING:
    from frontends.dockerfile.outline import Outline

_CAPABILITIES = frozenset(
    f"moby.buildkit.frontend.{name}" for name in ("inputs", "subrequests", "contexts", "gitquerystring")
)


class DockerfileFrontend:
    """`frontends.gateway.Frontend`"""

    async def build(self, gateway: Gateway, request: FrontendRequest) -> FrontendResult:
        """Raises ParseError, UserError, SourceError."""
        if frontend_of(request.options.get("filename", "")) == PYTHON:  # of a client who knows one frontend only
            return await gateway.run_frontend(PYTHON, request.options, request.inputs)
        read = options.read(request.options, request.session)
        if read.multi_platform is False and len(request.platforms) > 1:
            raise UserError("conflicting config: returning multiple target platforms is not allowed")
        if (lacking := _lacking(read.capabilities)) is not None:
            raise lacking
        gateway.import_caches(read.cache_imports)
        context = await source.find_context(gateway, request, read)
        definition = await source.load_definition(gateway, context, read)
        other = forwarding.other_language(definition.file, read, request.build_platform)
        if other is not None:
            return await forwarding.forward(gateway, request, other)
        if (lacking := _lacking(read.forwarded_capabilities)) is not None:
            raise lacking
        building = _Building(gateway=gateway, request=request, options=read, context=context, definition=definition)
        return await building.answer() if read.request else await building.run()


def _lacking(asked: Sequence[str]) -> Unsupported | None:
    """The first capability that is asked for and not here."""
    for name in asked:
        if name not in _CAPABILITIES:
            hint = f"there are {', '.join(sorted(_CAPABILITIES))}"
            return Unsupported(f"unsupported frontend capability {name}", capability=name, hint=hint)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Building:
    """One build of one file, or one question about it."""

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
        converted = await self._all(self.request.platforms, self._warn)
        return self._result(converted, await self._scans(converted))

    async def _scans(self, converted: Sequence[Converted]) -> Sequence[tuple[Attestation, ...]]:
        """What a scanner is to write of each result, if one is asked for."""
        none: Sequence[tuple[Attestation, ...]] = [()] * len(converted)
        if not asks_to_attest(self.request.options):
            return none
        from frontends import attestations  # few builds do
        from frontends.dockerfile import scanned
        from frontends.sbom import open_scanner

        scanner = attestations.scanner(self.request.options)
        if scanner is None:
            return none
        scan = await open_scanner(self.gateway, scanner, self.request.build_platform, mode=self.options.resolve_mode)
        return [
            (scan(str(platform), scanned.targets(found), platform),)
            for platform, found in zip(self.request.platforms, converted, strict=True)
        ]

    async def answer(self) -> FrontendResult:
        """What was asked instead of a build. Raises Unsupported."""
        from frontends.dockerfile import answers  # a build needs none

        data = self.definition.file.data
        match self.options.request:
            case answers.DESCRIBE:
                said = answers.describe()
            case answers.TARGETS:
                _, written = stages.group(self._instructions(Linter())[1])
                said = answers.targets([start for start, *_ in written if isinstance(start, ins.From)], data)
            case answers.LINT:
                findings, error = await self._findings()
                said = answers.lint(self.definition.mapped, findings, error)
            case answers.CONVERT:
                platform = self.request.build_platform
                (found,) = await self._all((platform,), self._warn)
                said = answers.converted(found.state.marshal(platform))
            case answers.OUTLINE:
                said = answers.outline(await self._outline(), data)
            case unknown:
                raise Unsupported(f"unsupported request {unknown}", request=unknown)
        return FrontendResult(results=(), metadata=said)

    async def _findings(self) -> tuple[list[Finding], BuildError | None]:
        """What the linter has to say of the target, or of all stages where no target is named."""
        findings: list[Finding] = []
        try:
            await self._all((self.request.build_platform,), findings.append, every_stage=not self.options.target)
        except BuildError as error:
            return findings, error
        return findings, None

    async def _outline(self) -> Outline:
        from frontends.dockerfile.outline import outline

        linter = Linter(report=self._warn)
        dockerfile, instructions = self._instructions(linter)
        lexer = Lexer(escape=dockerfile.escape)
        platform = self.request.build_platform
        made = self._plan(instructions, lexer, platform, linter)
        converted = await self._convert(made, lexer, await self._ignored(), platform, linter)
        linter.finish()
        return outline(made, converted.drafts, self.options.build_args, lexer)

    async def _all(
        self, wanted: Sequence[Platform], report: Callable[[Finding], None], *, every_stage: bool = False
    ) -> list[Converted]:
        """The target for each platform. Findings come as they are found; what is wrong with one platform is raised."""
        linter = Linter(report=report)
        dockerfile, instructions = self._instructions(linter)
        ignored = await self._ignored()
        quiet = Linter(settings=linter.settings)  # what holds for one platform would be said again for each
        lexer = Lexer(escape=dockerfile.escape)

        linters = [quiet if position else linter for position in range(len(wanted))]
        plans = [  # one after the other: what is found before a mistake is told, whichever platform has it
            self._plan(instructions, lexer, platform, linter, every_stage=every_stage)
            for platform, linter in zip(wanted, linters, strict=True)
        ]
        converted = await gather([
            partial(self._convert, plan, lexer, ignored, platform, linter)
            for plan, platform, linter in zip(plans, wanted, linters, strict=True)
        ])  # fmt: skip
        linter.finish()
        return converted

    def _instructions(self, linter: Linter) -> tuple[lines.Dockerfile, list[Instruction]]:
        """The file, parsed. The linter has its settings from it; what it finds before a mistake is found."""
        dockerfile = lines.split(self.definition.file)
        linter.settings = lint.settings_of(dockerfile, self.options.lint)
        lint.check_lines(linter, dockerfile)
        return dockerfile, lint.checked(linter, parse.instructions(dockerfile))

    async def _ignored(self) -> tuple[str, ...]:
        return await source.load_ignored(self.gateway, self.context, self.definition, self.options)

    def _warn(self, finding: Finding) -> None:
        self.gateway.warn(
            WarningEvent(
                vertex=self.definition.vertex,
                message=finding.short,
                detail=(finding.description,),
                url=finding.url,
                location=finding.location,
            )
        )

    def _plan(
        self,
        instructions: Sequence[Instruction],
        lexer: Lexer,
        platform: Platform,
        linter: Linter,
        *,
        every_stage: bool = False,
    ) -> plan.Plan:
        return plan.make(
            instructions,
            self.options,
            lexer,
            linter,
            build_platform=self.request.build_platform,
            target_platform=platform,
            every_stage=every_stage,
        )

    async def _convert(
        self, made: plan.Plan, lexer: Lexer, ignored: tuple[str, ...], platform: Platform, linter: Linter
    ) -> Converted:
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
        await loader.load(*made.wanted)
        return convert(made.graph, made.wanted, self._shared(made, lexer, linter, ignored, platform))

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
                session=self.options.session_of(source.CONTEXT),
                name="[internal] load build context",
            )

        return pending_local(make, used)

    def _result(self, converted: Sequence[Converted], attested: Sequence[tuple[Attestation, ...]]) -> FrontendResult:
        results: list[PlatformResult] = []
        for platform, found, said in zip(self.request.platforms, converted, attested, strict=True):
            definition = found.state.marshal(platform)
            results.append(
                PlatformResult(
                    platform=platform,
                    definition=None if definition.is_scratch else definition,
                    config=to_json(found.image),
                    base_config=found.base_config,
                    attestations=said,
                )
            )
        return FrontendResult(results=tuple(results), multi_platform=self.multi_platform)
