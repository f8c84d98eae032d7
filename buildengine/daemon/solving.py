"""From definitions to results within one build: loaded, solved by its job, held until the job ends."""

from __future__ import annotations

from functools import partial

from buildengine.digest import Digest
from cache.layerrows import RemoteBlob
from frontends.gateway import FrontendResult, PlatformResult
from llb import graph
from llb.definition import Definition
from solver.export import KeyGraph
from solver.job import Job
from solver.loader import load
from solver.vertex import Edge, Result
from worker.context import BuildContext
from worker.exporters.document import described
from worker.exporters.result import BaseLayer, BuildResult, PlatformImage
from worker.worker import renew_cache_mounts, resolver


class Solving:
    """One build's way to the solver."""

    def __init__(self, context: BuildContext, job: Job) -> None:
        self.context = context
        self._job = job

    async def solve(self, definition: Definition) -> Result | None:
        """The result of a definition; None is the empty tree."""
        if definition.is_scratch:
            return None
        return (await self._job.solve([await self._load(definition)]))[0]

    async def results(self, result: FrontendResult) -> BuildResult:
        """All platforms at once, in one graph: what they share is solved once."""
        definitions = [made.definition or Definition() for made in result.results]
        edges = [None if definition.is_scratch else await self._load(definition) for definition in definitions]
        solved = iter(await self._job.solve([edge for edge in edges if edge is not None]))
        trees = [None if edge is None else next(solved) for edge in edges]
        images = [await self._image(*each) for each in zip(result.results, edges, trees, strict=True)]
        return BuildResult(images=tuple(images), multi_platform=result.multi_platform or len(images) > 1)

    async def _image(self, made: PlatformResult, edge: Edge | None, tree: Result | None) -> PlatformImage:
        return PlatformImage(
            id=made.key or str(made.platform),
            platform=described(made.platform, made.config),
            stack=await self.context.trees.stack_of(tree),
            config=made.config,
            base_config=made.base_config,
            base=self._base_layers(made.base_config),
            key_graph=partial(self._job.key_graph, edge) if edge is not None else KeyGraph,
        )

    def _base_layers(self, config: bytes) -> tuple[BaseLayer, ...]:
        """The layers of the image with this config, which the build has resolved; nothing where it has not."""
        image = self.context.images.with_config(Digest.sha256(config)) if config else None
        if image is None:
            return ()
        origins = (image.origin,) if image.origin else ()
        windows = image.config.platform.os == "windows"
        return tuple(
            BaseLayer(
                diff_id=diff_id,
                urls=blob.urls,
                blob=RemoteBlob(
                    digest=blob.digest, size=blob.size, media_type=blob.media_type, origins=origins, windows=windows
                ),
            )
            for blob, diff_id in image.layers
        )

    async def _load(self, definition: Definition) -> Edge:
        loaded = graph.load(definition)
        await renew_cache_mounts(self.context, loaded)
        return load(loaded, resolver(self.context))
