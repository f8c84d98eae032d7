"""A blob on its way from one registry to the next: whole although its source cuts, ignores ranges, or has it not."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from buildengine.digest import Digest
from buildengine.errors import RegistryError, SourceError
from tests.fakes.http_server import Reply, Request
from tests.fakes.registry_server import FakeRegistry, Image, client, fake_registry, index
from worker.oci.types import OCI_LAYER, Descriptor, parse_manifest_or_index
from worker.registry.remote import RemoteContent

DATA = bytes(range(256)) * 4000
IMAGE = Image(layers=[DATA])
LAYER = Descriptor(media_type=OCI_LAYER, digest=Digest.sha256(DATA), size=len(DATA))


async def read(fake: FakeRegistry, *repositories: str, start: int = 0, end: int = len(DATA)) -> bytes:
    async with client() as registry:
        content = RemoteContent(registry)
        for repository in repositories:
            content.add(parse_manifest_or_index(IMAGE.manifest), f"{fake.host}/{repository}")
        async with content.open(LAYER) as reader, aclosing(reader.chunks(start, end)) as chunks:
            return b"".join([chunk async for chunk in chunks])


@pytest.mark.parametrize(("start", "end"), [(0, len(DATA)), (0, 100), (100, 5000), (len(DATA) - 1, len(DATA)), (7, 7)])
async def test_any_part_of_a_blob(start: int, end: int) -> None:
    async with fake_registry() as fake:
        fake.put("app", "1", IMAGE)
        assert await read(fake, "app", start=start, end=end) == DATA[start:end]


async def test_a_registry_that_knows_no_ranges() -> None:

    def whole(request: Request) -> Reply | None:
        return Reply(body=DATA) if "/blobs/" in request.path else None

    async with fake_registry(rules=[whole]) as fake:
        assert await read(fake, "app", start=100, end=300_000) == DATA[100:300_000]


async def test_what_breaks_off_is_gone_on_with() -> None:
    cuts = [100_000, 300_000, 0]

    def cutting(request: Request) -> Reply | None:
        if "/blobs/" not in request.path or not cuts:
            return None
        start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        end = len(DATA) - 1
        headers = {"content-range": f"bytes {start}-{end}/{len(DATA)}"} if start else {}
        return Reply(status=206 if start else 200, body=DATA[start:], headers=headers, cut=cuts.pop(0))

    async with fake_registry(rules=[cutting]) as fake:
        fake.put("app", "1", IMAGE)
        assert await read(fake, "app") == DATA
    assert len(fake.server.requests) == 4


async def test_a_registry_that_drips_is_not_waited_for_for_ever() -> None:

    def dripping(request: Request) -> Reply | None:
        if not request.path.startswith("/v2/drips/"):
            return None
        start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        headers = {"content-range": f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"} if start else {}
        return Reply(status=206 if start else 200, body=DATA[start:], headers=headers, cut=1)

    async with fake_registry(rules=[dripping]) as fake:
        fake.put("app", "1", IMAGE)
        assert await read(fake, "drips", "app") == DATA
    assert len(fake.server.requests) == 31


async def test_the_next_repository_that_has_it() -> None:

    def gone(request: Request) -> Reply | None:
        return Reply(status=404) if request.path.startswith("/v2/first/") else None

    async with fake_registry(rules=[gone]) as fake:
        fake.put("second", "1", IMAGE)
        assert await read(fake, "first", "second") == DATA
        with pytest.raises(RegistryError, match="not found"):
            await read(fake, "first")
        with pytest.raises(RegistryError, match="no registry is known to hold"):
            await read(fake)


async def test_more_bytes_than_were_promised() -> None:

    def more(request: Request) -> Reply | None:
        return Reply(body=DATA + b"x") if "/blobs/" in request.path else None

    async with fake_registry(rules=[more]) as fake:
        with pytest.raises(SourceError, match="announces"):
            await read(fake, "app")


async def test_documents_come_from_where_their_parents_are() -> None:
    async with fake_registry() as fake:
        fake.put("app", "1", IMAGE)
        root = parse_manifest_or_index(index(IMAGE.entry()))
        async with client() as registry:
            content = RemoteContent(registry)
            content.add(root, f"{fake.host}/app")
            child = root.manifests[0]
            assert await content.document(child) == await content.document(child) == IMAGE.manifest
            assert content.origins(LAYER.digest) == (f"{fake.host}/app",)
            with pytest.raises(RegistryError, match="no registry is known"):
                await content.document(Descriptor(media_type="", digest=Digest.sha256(b"?"), size=1))
    assert len(fake.server.requests) == 1


async def test_what_is_made_is_asked_for_at_once_and_never_itself() -> None:
    images = [Image(layers=[b"%d" % number]) for number in range(5)]
    made = parse_manifest_or_index(index(*(image.entry() for image in images)))
    async with fake_registry() as fake, client() as registry:
        content = RemoteContent(registry)
        for number, image in enumerate(images):
            fake.put(f"app{number}", "1", image)
            content.add(parse_manifest_or_index(index(image.entry())), f"{fake.host}/app{number}")
        await content.add_made(made)
        assert len(fake.server.requests) == 5
        assert await content.document(made.descriptor) == made.raw
        assert [await content.document(child) for child in made.manifests] == [image.manifest for image in images]
        assert len(fake.server.requests) == 5
