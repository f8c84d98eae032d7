"""What stages start from: images, resolved through the gateway, and named contexts. The edge of the conversion."""

from __future__ import annotations

from functools import partial

from buildengine import reference
from buildengine.errors import BuildError, SourceError, UserError
from buildengine.platform import Platform
from buildengine.values import dataclass
from frontends.dockerfile import contexts, imageconfig
from frontends.dockerfile.contextloading import SCRATCH, ContextLoader, Loaded, pinned
from frontends.dockerfile.contexts import NamedContext
from frontends.dockerfile.convert.draft import COMMAND
from frontends.dockerfile.imageconfig import Image
from frontends.dockerfile.lint import Linter
from frontends.dockerfile.options import Options
from frontends.dockerfile.stages import Graph, Stage
from frontends.dockerfile.suggest import did_you_mean, nearest
from frontends.dockerfile.together import gather
from frontends.gateway import FrontendRequest, Gateway
from llb.sourcemap import SourceFile
from llb.sources import image
from llb.state import State, scratch

_CHECK_NAME = "is the name right, and the tag?"
_COMMON_IMAGES = ("alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora", "python", "node")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    """Loads what the stages of one platform start from."""

    gateway: Gateway
    request: FrontendRequest
    options: Options
    linter: Linter
    source: SourceFile
    graph: Graph
    target_platform: Platform
    show_platform: bool

    async def load(self, *targets: Stage) -> None:
        """Everything that the targets need, all images at once. ONBUILD triggers may ask for more, so again."""
        while True:
            pending = self.graph.pending(*targets)
            loaded = await gather([partial(self._stage, stage) for stage in pending])
            for stage, found in zip(pending, loaded, strict=True):
                stage.loaded = found
            if not self.graph.read_triggers(*targets):
                return

    async def _stage(self, stage: Stage) -> Loaded:
        try:
            if stage.context is not None:
                return await self._replaced(stage, stage.context)
            if stage.image == SCRATCH:
                empty = imageconfig.empty(self.target_platform)
                return Loaded(state=scratch(), image=empty, platform=self.target_platform)
            return await self._image(stage, stage.platform or self.target_platform)
        except BuildError as error:
            raise error.located(stage.location) from None

    async def _replaced(self, stage: Stage, context: NamedContext) -> Loaded:
        """A named context in the place of the stage."""
        found = await self._context(stage, context, stage.platform or self.target_platform)
        platform = found.image.platform or stage.platform or self.target_platform
        return Loaded(state=found.state, image=found.image, platform=platform, base=found.base)

    async def _context(self, stage: Stage, context: NamedContext, platform: Platform) -> Loaded:
        loader = ContextLoader(gateway=self.gateway, request=self.request, options=self.options)
        return await loader.load(context, platform, stage.used)

    async def _image(self, stage: Stage, platform: Platform) -> Loaded:
        try:
            name = reference.normalize(stage.image)
        except UserError as error:
            suggestion = did_you_mean(stage.image, self.graph.names)
            message = f'failed to parse stage name "{stage.image}": {_as_go_says(error)}{suggestion}'
            meant = self.graph.find(stage.image)
            hint = (
                f"FROM takes stage names in lower case: {meant.name}" if meant else self._misread(stage) or error.hint
            )
            raise UserError(message, hint=hint) from None
        context = contexts.find(self.options, name, platform)
        if context is not None:
            found = await self._context(stage, context, platform)
            config = found.image if found.image.platform else imageconfig.empty(platform)
            return Loaded(state=found.state.with_platform(platform), image=config, platform=platform, base=found.base)
        try:
            where = f"{platform} internal" if self.show_platform else "internal"
            resolved = await self.gateway.resolve_image(
                name,
                platform=platform,
                mode=self.options.resolve_mode,
                name=f"[{where}] load metadata for {name}",
            )
        except SourceError as error:
            suggestion = did_you_mean(stage.image, [*self.graph.names, *_COMMON_IMAGES])
            error.message = f"{stage.image}: failed to resolve source metadata for {name}: {error.message}{suggestion}"
            error.hint = "; ".join(part for part in (self._advice(stage), error.hint) if part) or _CHECK_NAME
            raise
        config = imageconfig.parse(resolved.config)
        platform = self._detected(stage, config, platform)
        self._check_platform(stage, config, platform)
        state = self._pulled(stage, pinned(stage.image, resolved), platform)
        return Loaded(
            state=state if config.has_layers else scratch().with_platform(platform),
            image=config,
            platform=platform,
            base=resolved.config,
            pulled=config.has_layers,
        )

    def _misread(self, stage: Stage) -> str:
        """What may be meant by a name that is none: a stage in another case, or a variable that has no value."""
        close = nearest(stage.image.lower(), self.graph.names)
        return f"did you mean {close}?" if close else stage.unset

    def _advice(self, stage: Stage) -> str:
        """What may be meant by the name of an image that is not there."""
        named = self.graph.find(stage.image)
        if named is not None and not stage.implicit:
            where = (
                "is this stage itself" if named is stage else "is defined later; a stage can only use those above it"
            )
            return f"the stage {stage.image} {where}"
        if stage.implicit and "/" not in stage.image:
            return f"no stage above is called {stage.image}, so it was taken for an image"
        return ""

    def _pulled(self, stage: Stage, pinned: str, platform: Platform) -> State:
        shown = str(platform) if self.show_platform else ""
        ranges = stage.location.ranges
        return image(
            pinned,
            platform=platform,
            resolve_mode=self.options.resolve_mode,
            name=stage.step_name(1, f"FROM {pinned}", platform=shown),
            description={COMMAND: stage.instruction.text if stage.instruction else ""},
            place=self.source.at(*ranges),
        )

    def _detected(self, stage: Stage, config: Image, platform: Platform) -> Platform:
        """Without a --platform, an image that runs here natively is for here, whatever the target."""
        build = self.request.build_platform
        free = self.options.implicit_platform and stage.platform is None
        same = (config.os, config.architecture) == (platform.os, platform.architecture)
        return (
            build
            if free and not same and (config.os, config.architecture) == (build.os, build.architecture)
            else platform
        )

    def _check_platform(self, stage: Stage, config: Image, expected: Platform) -> None:
        if (config.os, config.architecture) != (expected.os, expected.architecture):
            actual = "/".join(part for part in (config.os, config.architecture, config.variant) if part)
            message = (
                f'Base image {stage.image} was pulled with platform "{actual}", expected "{expected}" for current build'
            )
            self.linter.found("InvalidBaseImagePlatform", message, stage.location)


def _as_go_says(error: UserError) -> str:
    """What is wrong with an image's name, behind the words of Go's library (github.com/distribution/reference)."""
    return f"invalid reference format: {error.message.partition(': ')[2]}"
