"""`buildengine.registries.ImageTools` in this process: images looked at and put together where they are.

Needs neither root nor an engine, and keeps nothing: what goes from one registry to another passes through.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

from buildengine.config import Config
from buildengine.daemon.local_session import DockerConfigCredentials
from buildengine.daemon.running import run_to_end
from buildengine.daemon.sources import NamedSource, named_sources
from buildengine.errors import UserError
from buildengine.events import EventSink
from buildengine.reference import Reference, parse
from buildengine.registries import Combination, Combined, RemoteDocument
from worker.exporters.annotations import parse as parse_annotations
from worker.oci import combine
from worker.oci.types import CONFIG_TYPES, Index, Manifest, parse_manifest_or_index
from worker.registry.configured import registry_config
from worker.registry.described import PROVENANCE, SBOM, Describer, PlatformImage
from worker.registry.puller import Registry, open_registry
from worker.registry.remote import RemoteContent


class LocalImageTools:
    def __init__(self, config: Config) -> None:
        self._registries = registry_config(config.registries, config.environment)
        self._credentials = DockerConfigCredentials(config.docker_config / "config.json", config.environment)

    def inspect(self, reference: str) -> RemoteDocument:
        return run_to_end(partial(self._inspect, parse(reference)))

    def describe(self, reference: str, parts: Collection[str]) -> Mapping[str, object]:
        return run_to_end(partial(self._describe, reference, parts))

    def create(
        self, combination: Combination, on_event: EventSink, on_tick: Callable[[], None] | None = None
    ) -> Combined:
        return run_to_end(partial(self._create, combination, on_event), on_tick)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Registry]:
        async with open_registry(self._registries, self._credentials) as registry:
            yield registry

    async def _inspect(self, reference: Reference) -> RemoteDocument:
        async with self._open() as registry:
            found = await registry.fetch_manifest(reference)
        return RemoteDocument(name=str(reference), media_type=found.media_type, digest=found.digest, raw=found.raw)

    async def _describe(self, name: str, parts: Collection[str]) -> Mapping[str, object]:
        reference = parse(name)
        async with self._open() as registry:
            root = await registry.fetch_manifest(reference)
            described: dict[str, object] = {"name": name, "manifest": _manifest(root)}
            if parts:
                describer = Describer(registry, reference)
                images = await describer.images(root)
                for part in parts:
                    found = await _by_platform(describer, images, part)
                    described[part] = found if len(images) > 1 else next(iter(found.values()), {})
        return described

    async def _create(self, combination: Combination, on_event: EventSink) -> Combined:
        targets = [_target(text) for text in combination.targets]
        if not targets and not combination.dry_run:
            raise UserError("the new image has no name", hint="give one with --tag, or --dry-run to look at it only")
        before = combination.targets[:1] if combination.append else ()
        named = named_sources((*before, *combination.sources), targets)
        async with self._open() as registry:
            content = RemoteContent(registry)
            made = _combined(combination, await _sources(registry, named, content))
            if not combination.dry_run:
                from buildengine.daemon.publish import Publication, publish  # and with it most of an engine

                await content.add_made(parse_manifest_or_index(made.raw, media_type=made.media_type))
                await publish(
                    [Publication(target=made.descriptor, names=tuple(targets))],
                    content,
                    config=self._registries,
                    credentials=self._credentials,
                    on_event=on_event,
                )
        repositories = tuple(sorted({target.name for target in targets}))
        return Combined(descriptor=made.descriptor.to_json(), repositories=repositories, raw=made.raw)


def _target(text: str) -> Reference:
    target = parse(text)
    if target.digest is not None:
        raise UserError(f"--tag {text}: what the new image's digest is shows only when it is made")
    return target


def _combined(combination: Combination, sources: Sequence[combine.Source]) -> combine.Combined:
    given, others = parse_annotations(combination.annotations)
    for scope, _, values in given.by_platform:
        if scope == "manifest":
            raise UserError(
                f"{next(iter(values))}: the manifests stay as they are, so they cannot be annotated",
                hint="index: annotates the whole, manifest-descriptor: the entries of the index",
            )
    if given.index_descriptor or others:
        raise UserError("an index in a registry has no descriptor to annotate", hint="index: annotates the index")
    made = combine.combine(
        sources,
        annotations=given.index,
        entry_annotations=[(platform, values) for _, platform, values in given.by_platform],
        prefer_index=combination.prefer_index,
    )
    return combine.only_platforms(made, combination.platforms)


async def _sources(registry: Registry, named: Sequence[NamedSource], content: RemoteContent) -> list[combine.Source]:
    """The documents of all sources, asked for at once."""
    found: dict[int, combine.Source] = {}

    async def fetch(number: int, source: NamedSource) -> None:
        document = await registry.fetch_manifest(source.reference)
        content.add(document, source.reference.name)
        platform = await _platform(registry, source, document)
        found[number] = combine.Source(document=document, entry=combine.entry_of(document, source.entry, platform))

    async with trio.open_nursery() as nursery:
        for number, source in enumerate(named):
            nursery.start_soon(fetch, number, source)
    return [found[number] for number in range(len(named))]


async def _platform(registry: Registry, source: NamedSource, document: Manifest | Index) -> Mapping[str, Any] | None:
    """What the config says, for a manifest whose descriptor does not say it."""
    stated = source.entry.get("platform") or {}
    if isinstance(document, Index) or (stated.get("os") and stated.get("architecture")):
        return None
    if document.config.media_type not in CONFIG_TYPES:
        return None
    config = await Describer(registry, source.reference).config(document)
    return config.platform.to_json()


async def _by_platform(describer: Describer, images: Mapping[str, PlatformImage], part: str) -> Mapping[str, object]:
    """One part of what is known of each image, asked for at once; those that have no such thing are left out."""
    found: dict[str, object] = {}

    async def fetch(platform: str) -> None:
        found[platform] = await _part(describer, images[platform], part)

    async with trio.open_nursery() as nursery:
        for platform in images:
            nursery.start_soon(fetch, platform)
    return {platform: found[platform] for platform in images if found[platform]}


async def _part(describer: Describer, image: PlatformImage, part: str) -> object:
    """One part of what is known of one image; None where there is no such thing."""
    if part == "image":
        return dict((await describer.config(image.manifest)).document)
    if part == "SBOM":
        first, *more = await describer.predicates(image, SBOM) or [None]
        return {"SPDX": first, **({"AdditionalSPDXs": more} if more else {})} if first is not None else None
    assert part == "Provenance"
    found = await describer.predicates(image, PROVENANCE)
    return {"SLSA": found[-1]} if found else None


def _manifest(root: Manifest | Index) -> Mapping[str, object]:
    """An index with its own digest and size, a manifest by its descriptor."""
    if isinstance(root, Manifest):
        return root.descriptor.to_json()
    document = json.loads(root.raw)
    found = {
        "schemaVersion": document.get("schemaVersion", 2),
        "mediaType": root.media_type,
        "digest": str(root.digest),
        "size": len(root.raw),
        "manifests": [combine.in_gos_order(entry) for entry in document.get("manifests") or ()],
    }
    return found | ({"annotations": document["annotations"]} if document.get("annotations") else {})
