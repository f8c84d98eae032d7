"""Pushing: what a build made, after all its exporters have done their local work, or an image of the local store.

Names of the rows are BuildKit's (util/push/push.go), so that people and their scripts recognise them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from buildengine.daemon.image_names import as_name, find_image
from buildengine.daemon.steps import step
from buildengine.digest import Digest
from buildengine.errors import UserError
from buildengine.events import EventSink
from buildengine.reference import Reference, parse
from buildengine.values import dataclass
from cache.opened import Cache
from solver.reporter import Reporter
from worker.exporters.content import StoredContent
from worker.images import open_images
from worker.oci.types import Descriptor, parse_manifest_or_index
from worker.registry.hosts import RegistryConfig
from worker.registry.puller import open_registry
from worker.registry.pusher import Content, open_pusher
from worker.registry.remote import RemoteContent
from worker.session import Credentials

if TYPE_CHECKING:
    from buildengine.daemon.exports import Exports
    from worker.context import BuildContext


async def publish_results(context: BuildContext, exports: Exports, config: RegistryConfig, on_event: EventSink) -> None:
    """Push what the exporters of a build have left to be pushed."""
    publications = [
        Publication(target=image.target, names=options.names, insecure=options.insecure)
        for image, options in exports.pushes
    ]
    content = StoredContent(context.cache, context.images, lazy=exports.received)
    await publish(publications, content, config=config, credentials=context.session.credentials, on_event=on_event)


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """One image to push under `names`; a name without a tag means by its digest. `insecure`: `registry.insecure`."""

    target: Descriptor
    names: tuple[Reference, ...]
    insecure: bool = False


async def publish(
    publications: Sequence[Publication],
    content: Content,
    *,
    config: RegistryConfig,
    credentials: Credentials,
    on_event: EventSink,
) -> None:
    """Push them one after the other: what the first has sent, the next finds or mounts. Raises BuildError."""
    insecure = {name.domain for publication in publications if publication.insecure for name in publication.names}
    async with open_pusher(config, credentials, insecure=insecure) as pusher:
        for number, publication in enumerate(publications):
            title = "pushing " + ", ".join(name.familiar for name in publication.names)
            with step(on_event, title, salt=str(number)) as reporter:
                rows = _Rows(reporter)
                await pusher.push(
                    publication.target, content, publication.names, stage=rows.stage, on_progress=rows.sent
                )


async def push_stored(
    cache: Cache,
    reference: str,
    names: Sequence[str],
    *,
    config: RegistryConfig,
    credentials: Credentials,
    on_event: EventSink,
) -> Sequence[str]:
    """Push the image that `reference` means in the local store under `names`, or as `reference`. Raises BuildError.

    Platforms of it that were never pulled are copied from where its other names say that it is.
    """
    found = find_image(cache, reference)
    document = parse_manifest_or_index(cache.store.read(found[0].digest))
    if not names and not any(image.name and image.name == as_name(reference) for image in found):
        raise UserError(f"{reference} is no name to push under", hint=f"give one: pybuild push {reference} NAME")
    targets = tuple(_destination(name, document.digest) for name in names or (reference,))
    async with (
        open_images(cache, lambda: config, credentials) as images,
        open_registry(config, credentials) as registry,
    ):
        elsewhere = RemoteContent(registry)
        for repository in dict.fromkeys(parse(image.name).name for image in found if image.name):
            elsewhere.add(document, repository)
        with cache.activity():
            await publish(
                [Publication(target=document.descriptor, names=targets)],
                StoredContent(cache, images, elsewhere=elsewhere),
                config=config,
                credentials=credentials,
                on_event=on_event,
            )
    return [name.with_digest(document.digest).familiar for name in targets]


def _destination(text: str, digest: Digest) -> Reference:
    """`name`, `name:tag`, or `name@digest` when that is the image's own."""
    name = parse(text)
    if name.digest not in (None, digest):
        raise UserError(f"{text} cannot name the image {digest}", hint="push it by a tag, or by its own digest")
    return Reference(domain=name.domain, path=name.path, tag=name.tag)


class _Rows:
    """The lines of progress below one push."""

    def __init__(self, reporter: Reporter, *, clock: Callable[[], float] = time.time) -> None:
        self._reporter = reporter
        self._clock = clock
        self._name = ""
        self._started = 0.0
        self._sent: dict[Digest, tuple[int, int]] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._name, self._started = name, self._clock()
        self._sent.clear()
        self._tell(None)
        yield
        self._tell(self._clock())

    def sent(self, digest: Digest, current: int, total: int) -> None:
        """So many bytes of a blob have gone."""
        self._sent[digest] = (current, total)
        self._tell(None)

    def _tell(self, completed: float | None) -> None:
        self._reporter.status(
            self._name,
            current=sum(current for current, _ in self._sent.values()),
            total=sum(total for _, total in self._sent.values()),
            started=self._started,
            completed=completed,
        )
