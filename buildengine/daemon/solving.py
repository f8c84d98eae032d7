"""From definitions to results within one build: loaded, solved by its job, held until the job ends."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

from buildengine.daemon.policies import Policies
from buildengine.digest import Digest
from buildengine.platform import DEFAULT_PATH, Platform
from cache.layerrows import RemoteBlob
from frontends.gateway import Attestation as Attested
from frontends.gateway import FrontendResult, PlatformResult
from llb import graph
from llb.definition import Definition
from solver.export import KeyGraph
from solver.job import Job
from solver.loader import load
from solver.vertex import Edge, Result
from worker.context import BuildContext
from worker.exporters.annotations import Annotations
from worker.exporters.annotations import parse as parse_annotations
from worker.exporters.document import described
from worker.exporters.result import BaseLayer, BuildResult, PlatformImage
from worker.worker import renew_cache_mounts, resolver

if TYPE_CHECKING:  # few results have any
    from worker.exporters.attestations import Attestation

_NAMES = "image.name"  # exptypes.ExporterImageNameKey


class Solving:
    """One build's way to the solver."""

    def __init__(self, context: BuildContext, job: Job, policies: Policies) -> None:
        self.context = context
        self.policies = policies
        self._job = job
        self.loaded: list[graph.Graph] = []  # all that was asked for, also what failed
        self._graphs: dict[int, tuple[Definition, graph.Graph]] = {}  # of what is solved, by the definition's identity

    async def solve(self, definition: Definition) -> Result | None:
        """The result of a definition; None is the empty tree."""
        if definition.is_scratch:
            return None
        loaded = await self._graph(definition)
        result = (await self._job.solve([await self._load(loaded)]))[0]
        self._graphs[id(definition)] = definition, loaded
        return result

    def graph_of(self, definition: Definition) -> graph.Graph | None:
        """The graph of a definition that this build has solved; None for any other."""
        known = self._graphs.get(id(definition))
        return known[1] if known is not None else None

    async def attested(self, said: Attested) -> Attestation:
        """Something that is attested, with its tree. The tree is the job's."""
        from worker.exporters.attestations import Attestation

        definition = said.definition
        if definition is None:
            return Attestation(claim=said.claim)
        return Attestation(claim=said.claim, stack=await self.context.trees.stack_of(await self.solve(definition)))

    async def results(self, result: FrontendResult) -> BuildResult:
        """All platforms at once, with what is attested, in one graph: what they share is solved once."""
        definitions = [made.definition or Definition() for made in result.results]
        definitions += [said.definition for made in result.results for said in made.attestations if said.definition]
        loaded = {id(each): (each, await self._graph(each)) for each in definitions if not each.is_scratch}
        edges = {key: await self._load(each) for key, (_, each) in loaded.items()}
        solved = dict(zip(edges, await self._job.solve([*edges.values()]), strict=True))
        self._graphs |= loaded
        keys = [id(made.definition) for made in result.results]
        images = [
            await self._image(made, edges.get(key), solved.get(key))
            for made, key in zip(result.results, keys, strict=True)
        ]
        return BuildResult(
            images=tuple(images),
            multi_platform=result.multi_platform or len(images) > 1,
            annotations=_annotations(result),
            names=result.metadata.get(_NAMES, b"").decode(errors="replace"),
        )

    async def _image(self, made: PlatformResult, edge: Edge | None, tree: Result | None) -> PlatformImage:
        config = made.config or _default_config(made.platform)
        return PlatformImage(
            id=made.id,
            platform=described(made.platform, config),
            stack=await self.context.trees.stack_of(tree),
            config=config,
            base_config=made.base_config,
            base=self._base_layers(made.base_config),
            key_graph=partial(self._job.key_graph, edge) if edge is not None else KeyGraph,
            attestations=tuple([await self.attested(said) for said in made.attestations]),
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

    async def _graph(self, definition: Definition) -> graph.Graph:
        return graph.load(await self.policies.definition(definition))

    async def _load(self, loaded: graph.Graph) -> Edge:
        self.loaded.append(loaded)
        await renew_cache_mounts(self.context, loaded)
        return load(loaded, resolver(self.context))


def _annotations(result: FrontendResult) -> Annotations:
    """What the frontend wants annotated: its metadata has the names of the exporters' attributes (exptypes)."""
    given = {name: value for name, value in result.metadata.items() if name.startswith("annotation")}
    if not given:
        return Annotations()
    return parse_annotations({name: value.decode(errors="replace") for name, value in given.items()})[0]


def _default_config(platform: Platform) -> bytes:
    """The image config of a result that came without one (exporter/containerimage/writer.go, defaultImageConfig)."""
    config: dict[str, object] = {} if platform.os == "windows" else {"Env": [f"PATH={DEFAULT_PATH}"]}
    document = {"architecture": platform.architecture, "os": platform.os, "config": {**config, "WorkingDir": "/"}}
    if platform.variant:
        document["variant"] = platform.variant
    return json.dumps(document).encode()
