"""What one build says of itself: its provenance, and the SBOM of whoever's result came without one.

    asked for at the build's start    what is wrong with an option is said before anything runs
    `attached` to its results         predicates are written when an exporter wants them: then all layers have blobs
    `remembered` with its record      a provenance for the history, whatever was asked for

What is decided stands in `worker.provenance`; this is the edge that asks the job and the store.

Facts: BuildKit control/control.go (Solve), solver/llbsolver/proc, solver/llbsolver/solver.go (recordBuildHistory).
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from buildengine import platform as platforms
from buildengine.attestation import INLINE_ONLY, REASON, SPDX, Claim
from buildengine.builder import BuildRequest, Predicate
from buildengine.daemon.solving import Solving
from buildengine.digest import Digest
from buildengine.limits import DISK, offload
from cache.layers import LayerBlob, RemoteBlob
from frontends import attestations
from frontends.gateway import Attestation as Attested
from frontends.gateway import FrontendResult, Gateway, PlatformResult
from llb.definition import Definition
from llb.state import State
from solver.job import Job
from solver.vertex import CacheRecord, Result
from worker.cachestore import stack_of_record
from worker.exporters import document
from worker.exporters.attestations import Attestation
from worker.exporters.result import BuildResult
from worker.oci import jsonbytes
from worker.oci.types import Descriptor
from worker.provenance import options
from worker.provenance.capture import Capture, capture
from worker.provenance.options import ProvenanceOptions, Version
from worker.provenance.predicate import Document, Invocation, Layers, predicate
from worker.provenance.scope import Scope
from worker.results import Snapshot, Stack

_HISTORY_VERSION = "build-arg:BUILDKIT_HISTORY_PROVENANCE_V1"
_OCI_NAMES = dict(zip(document.DOCKER.layers, document.OCI.layers, strict=True))


class Attesting:
    """Made at the start of a build. `environment` is the daemon's own part of what a provenance says.

    `is_remembered`: the history will have a provenance of it, whatever was asked for.
    """

    def __init__(self, request: BuildRequest, environment: Mapping[str, object], *, is_remembered: bool) -> None:
        asked = attestations.read(request.options)
        attributes = asked.get(attestations.PROVENANCE)
        self._request = request
        self._environment = environment
        self._is_remembered = is_remembered
        self._provenance = options.read(attributes) if attributes is not None else None
        self._builder_id = (attributes or {}).get("builder-id", "")
        self._scanner = attestations.scanner(request.options)
        self._id = secrets.token_hex(12)
        self._started = time.time()
        self._told: list[_Telling] = []
        self.scope = Scope(request.frontend, request.options if request.frontend else {})

    async def attached(
        self, result: FrontendResult, built: BuildResult, *, solving: Solving, job: Job, gateway: Gateway
    ) -> BuildResult:
        """The results with what is to be said of them. Raises BuildError."""
        self._told = [*self._captured(result, solving, job)]  # before the scan: a scanner is no material
        said = [[*image.attestations] for image in built.images]
        for made, scanned in zip(said, await self._scans(result, gateway), strict=True):
            made += [await solving.attested(one) for one in scanned]
        if self._provenance is not None:
            for one in self._told:
                said[one.position].append(one.attestation(self._provenance))
        images = [replace(image, attestations=tuple(own)) for image, own in zip(built.images, said, strict=True)]
        return replace(built, images=tuple(images))

    async def remembered(self, *, several: bool) -> dict[str, Predicate]:
        """The provenance of each result for the history, by platform; of a result that is no set by "". To be asked for
        after `attached`, while the job lasts."""
        if not self._is_remembered:
            return {}
        version = Version.SLSA02
        if self._request.options.get(_HISTORY_VERSION, "") in options.TRUE:
            version = Version.SLSA1
        wanted = ProvenanceOptions(version=version, builder_id=self._builder_id)
        return {
            one.id if several else "": Predicate(
                type=version.predicate_type,
                data=await offload(_readable, await one.predicate(wanted), limiter=DISK),
            )
            for one in self._told
        }

    async def _scans(self, result: FrontendResult, gateway: Gateway) -> list[list[Attested]]:
        """What a scanner is to write of each result, if one is asked for and the frontend had none of its own."""
        if self._scanner is None or _has_sbom(result):
            return [[] for _ in result.results]
        from frontends.sbom import Targets, open_scanner

        asked = self._request.options
        mode = asked.get("image-resolve-mode") or "default"
        scan = await open_scanner(gateway, self._scanner, platforms.local(), mode=mode)
        found: list[list[Attested]] = []
        for made in result.results:
            scanned = []
            if made.definition is not None and not made.definition.is_scratch:
                core = State.from_definition(made.definition)
                targets = Targets(core=core, ignore_cache=asked.get("no-cache") == "")
                scanned = [scan(made.id, targets, made.platform)]
            found.append(scanned)
        return found

    def _captured(self, result: FrontendResult, solving: Solving, job: Job) -> Iterator[_Telling]:
        pins = job.pins()
        seen: dict[int, Capture | None] = {}

        def captured(definition: Definition) -> Capture | None:
            if id(definition) not in seen:
                graph = solving.graph_of(definition)
                seen[id(definition)] = capture(graph, lambda digest: pins.get(digest, "")) if graph else None
            return seen[id(definition)]

        several = result.multi_platform or len(result.results) > 1
        results = [*_definitions(result)]
        for definition in results:
            self.scope.has_result(definition)
        for position, made in enumerate(result.results):
            if made.definition is None:
                continue
            scope = self.scope.of(made.definition)
            found = scope.capture(
                made.definition,
                results,
                captured,
                platform=made.platform if several else None,
                platforms=[each.platform for each in result.results],
            )
            if found is not None:
                yield _Telling(self._invocation(scope), found, made, position, solving, job)

    def _invocation(self, scope: Scope) -> Invocation:
        return Invocation(
            id=self._id,
            started=self._started,
            platform=platforms.local(),
            frontend=scope.frontend,
            arguments=scope.arguments,
            custom=self._environment,
        )


class _Telling:
    """The provenance of one result, as often as somebody wants it."""

    def __init__(
        self,
        invocation: Invocation,
        captured: Capture,
        made: PlatformResult,
        position: int,
        solving: Solving,
        job: Job,
    ) -> None:
        assert made.definition is not None
        self.id = made.id
        self.position = position
        self._invocation = invocation
        self._captured = captured
        self._definition = made.definition
        self._solving = solving
        self._job = job

    async def predicate(self, wanted: ProvenanceOptions) -> bytes:
        layers = self._layers() if wanted.whole else {}
        write = partial(predicate, finished=time.time(), layers=layers)
        # of 2,000 steps it takes 0.1 s, and so to make it readable: the event loop has others to answer
        return await offload(write, self._invocation, self._captured, wanted, self._definition, limiter=DISK)

    def attestation(self, wanted: ProvenanceOptions) -> Attestation:
        metadata = {REASON: b"provenance", INLINE_ONLY: b"true" if wanted.inline_only else b"false"}
        claim = Claim(predicate_type=wanted.version.predicate_type, path=wanted.filename, metadata=metadata)

        async def content() -> bytes:
            return await self.predicate(wanted)

        return Attestation(claim=claim, content=content)

    def _layers(self) -> Layers:
        """The layers of every step's results, where they all have blobs already: none is made for this."""
        known: dict[str, Document | None] = {}
        found: dict[tuple[Digest, int], Sequence[Sequence[Document]]] = {}
        for edge, result in self._job.results():
            chain = [self._layer(id, known) for id in _stack(result)]
            described = [layer for layer in chain if layer is not None]
            if described and len(described) == len(chain):
                found[edge.vertex.digest, edge.index] = [described]
        return found

    def _layer(self, id: str, known: dict[str, Document | None]) -> Document | None:
        """The descriptor of a layer; None for one that has no blob, or is gone."""
        if id not in known:
            layers = self._solving.context.cache.layers
            blob = (layers.get(id).remote if layers.exists(id) else None) or next(iter(layers.blobs(id)), None)
            known[id] = None if blob is None else _described(blob)
        return known[id]


def _readable(document: bytes) -> bytes:
    """People read it as it is."""
    return jsonbytes.indented(json.loads(document))


def _described(blob: RemoteBlob | LayerBlob) -> Document:
    media_type = _OCI_NAMES.get(blob.media_type, blob.media_type)
    return Descriptor(media_type=media_type, digest=blob.digest, size=blob.size).to_json()


def _stack(result: Result | CacheRecord) -> Stack:
    if isinstance(result, CacheRecord):
        return stack_of_record(result)
    return result.stack if isinstance(result, Snapshot) else ()


def _has_sbom(result: FrontendResult) -> bool:
    return any(said.claim.predicate_type == SPDX for made in result.results for said in made.attestations)


def _definitions(result: FrontendResult) -> Iterator[Definition]:
    """Those of the results, and of what came attested of them."""
    for made in result.results:
        if made.definition is not None:
            yield made.definition
        yield from (said.definition for said in made.attestations if said.definition is not None)
