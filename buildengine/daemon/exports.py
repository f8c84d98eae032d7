"""The last part of a build: results become images, archives and directories, one exporter after the other.

Names of the steps are BuildKit's, so that people and their scripts recognise them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from types import MappingProxyType

from buildengine.builder import BuildRequest
from buildengine.daemon.steps import step
from buildengine.digest import Digest
from buildengine.errors import UserError
from buildengine.events import EventSink
from buildengine.units import parse_epoch
from cache.layers import Layer
from solver.reporter import Reporter
from worker.context import BuildContext
from worker.exporters.blobs import LayerBlobs
from worker.exporters.image import CommittedImage, ImageWriter, store_image
from worker.exporters.options import ExportOptions, read
from worker.exporters.result import BuildResult

_TITLES = {
    "image": "exporting to image",
    "oci": "exporting to oci image format",
    "docker": "exporting to docker image format",
    "local": "exporting to client directory",
    "tar": "exporting to client tarball",
}
_EPOCH = "SOURCE_DATE_EPOCH"
_NOTHING: Mapping[str, str] = MappingProxyType({})


class Exports:
    """Runs the exporters of one build."""

    def __init__(self, context: BuildContext, request: BuildRequest, on_event: EventSink) -> None:
        self._context = context
        self._request = request
        self._on_event = on_event
        self._blobs = LayerBlobs(context.cache, context.trees)
        self._inline_cache = any(each.type == "inline" for each in request.cache_exports)
        self._writer = ImageWriter(context.cache, context.trees, self._blobs, inline_cache=self._inline_cache)
        self.said: list[Mapping[str, str]] = []  # each exporter's own response, after `run`
        self.pushes: list[tuple[CommittedImage, ExportOptions]] = []  # what is still to be published, after `run`
        self._options = [read(export.type, export.attrs, epoch=self._epoch()) for export in request.exports]
        for options in self._options:
            options.check_platforms(len(request.platforms))
            if request.platforms:
                options.annotations.check_platforms(map(str, request.platforms))

    @property
    def received(self) -> Mapping[Digest, Layer]:
        """The layers that kept the blob they came as; those of a pushed image may be in their registry only."""
        return self._blobs.received

    def _epoch(self) -> int | None:
        text = self._request.options.get(f"build-arg:{_EPOCH}", "")
        return parse_epoch(_EPOCH, text) if text else None

    async def run(self, result: BuildResult) -> dict[str, str]:
        """The exporter response: all exporters' keys, the last that says something wins (as in llbsolver)."""
        response: dict[str, str] = {}
        for number, options in enumerate(self._options):
            with step(self._on_event, _TITLES[options.kind], salt=str(number)) as reporter:
                said = await self._run_one(number, options, result, reporter)
                self.said.append(said)
                response.update(said)
        return response

    async def _run_one(
        self, number: int, options: ExportOptions, result: BuildResult, reporter: Reporter
    ) -> dict[str, str]:
        options = options.annotated(result.annotations).named(result.names)
        options.check_platforms(len(result.images), multi_platform=result.multi_platform)
        if options.kind in ("local", "tar"):
            return await self._export_files(number, options, result, reporter)
        with _part(reporter, "exporting layers"):
            image = await self._writer.commit(result, options)
        if self._inline_cache:
            with _part(reporter, "preparing layers for inline cache"):
                pass
        for manifest in image.manifests:
            with (
                _part(reporter, f"exporting manifest {manifest.digest}"),
                _part(reporter, f"exporting config {manifest.config.digest}"),
            ):
                pass
        if image.is_index:
            for attested in image.attested:
                with _part(reporter, f"exporting attestation manifest {attested.digest}"):
                    pass
            with _part(reporter, f"exporting manifest list {image.target.digest}"):
                pass
        if options.kind == "image":
            return await self._store(image, options, reporter)
        return await self._export_archive(number, options, image, reporter)

    async def _store(self, image: CommittedImage, options: ExportOptions, reporter: Reporter) -> dict[str, str]:
        if options.push:
            self.pushes.append((image, options))
        if not options.store:
            return image.response(options.names)
        response = await store_image(self._context.cache, image, options)
        for name in options.names_of(image.target.digest):
            with _part(reporter, f"naming to {name}"):
                pass
        return response

    async def _export_archive(
        self, number: int, options: ExportOptions, image: CommittedImage, reporter: Reporter
    ) -> dict[str, str]:
        from worker.exporters.archive import dated, send_blobs, write_committed, write_layout

        image = dated(image, options.epoch)
        store = self._context.cache.store
        if options.tar:
            opened = self._file(number, options.kind, image.response(options.names))
            with _part(reporter, "sending tarball"):
                async with opened as fd:
                    await write_committed(store, fd, image, options.names, docker=options.kind == "docker")
        elif (blobs := self._context.session.sinks.blobs(number)) is not None:
            with _part(reporter, "writing layout"):
                await send_blobs(store, blobs, image)
        else:
            destination = self._directory(number, f"{options.kind},tar=false")
            with _part(reporter, "writing layout"):
                async with destination as directory:
                    await write_layout(store, directory, image, options.names)
        return image.response(options.names)

    async def _export_files(
        self, number: int, options: ExportOptions, result: BuildResult, reporter: Reporter
    ) -> dict[str, str]:
        from worker.exporters import files

        trees = self._context.trees
        if options.kind == "local":
            async with self._directory(number, options.kind) as directory:
                await files.write_directory(trees, directory, result, options, partial(_part, reporter))
            return {}
        opened = self._file(number, options.kind)
        with _part(reporter, "sending tarball"):
            async with opened as fd:
                await files.write_tar(trees, fd, result, options)
        return {}

    def _file(self, number: int, kind: str, about: Mapping[str, str] = _NOTHING) -> AbstractAsyncContextManager[int]:
        """Where the stream of an output goes. Raises UserError."""
        opened = self._context.session.sinks.file(number, about)
        if opened is None:
            raise UserError(f"export type={kind} needs a destination", hint=f"--output type={kind},dest=FILE")
        return opened

    def _directory(self, number: int, kind: str) -> AbstractAsyncContextManager[str]:
        directory = self._context.session.sinks.directory(number)
        if directory is None:
            raise UserError(f"export type={kind} needs a destination", hint=f"--output type={kind},dest=DIRECTORY")
        return directory


@contextmanager
def _part(reporter: Reporter, name: str) -> Iterator[None]:
    """One line of progress below the step, for as long as the block lasts."""
    started = time.time()
    reporter.status(name, started=started)
    yield
    reporter.status(name, started=started, completed=time.time())
