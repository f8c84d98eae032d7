"""Pushing: what is sent, in which order, and what is not sent again. The registry is strict and in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from buildengine import reference
from buildengine.digest import Digest
from buildengine.errors import RegistryError, SourceError
from tests.fakes.http_server import Reply, Request, serve
from tests.fakes.push_registry import MemoryBlob, MemoryContent, PushRegistry, push_registry, pusher, target
from tests.fakes.registry_server import Image, Logins, index
from worker.oci import types
from worker.oci.document import InvalidImage
from worker.oci.types import Descriptor
from worker.registry.hosts import HostConfig
from worker.registry.pusher import mount_sources, read_plan


async def push(fake: PushRegistry, image: Image, *names: str, logins: Logins | None = None) -> MemoryContent:
    content = MemoryContent.of(image)
    async with pusher(logins) as client:
        await client.push(target(image), content, [reference.parse_repository(f"{fake.host}/{name}") for name in names])
    return content


def digests(image: Image) -> set[str]:
    return {str(Digest.sha256(blob)) for blob in (image.config, *image.layers)}


# --- order and economy --------------------------------------------------------------------------------------


async def test_blobs_then_the_manifest_then_nothing_twice() -> None:
    image = Image()
    async with push_registry() as fake:
        content = await push(fake, image, "app:1")
        assert {digest for repository, digest in fake.held if repository == "app"} == digests(image)
        assert fake.manifests["app", "1"] == (image.manifest, image.media_type)
        lines = fake.lines()
        assert lines[-2:] == ["HEAD app/manifests/1", "PUT app/manifests/1"]
        assert sorted(lines[:-2]) == sorted(
            [f"HEAD app/blobs/{digest}" for digest in digests(image)]
            + 3 * ["POST app/blobs/uploads/", "PUT app/blobs/uploads/N"]
        )
        assert sorted(content.places) == sorted((Digest(digest), f"{fake.host}/app") for digest in digests(image))
        again = await push(fake, image, "app:1")
        assert set(fake.lines()[len(lines) :]) == {
            *(f"HEAD app/blobs/{digest}" for digest in digests(image)),
            "HEAD app/manifests/1",
        }
        assert again.opened == []


async def test_the_next_blob_goes_while_the_registry_stores_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.registry.pusher._UPLOADS", 1)
    fake, second = PushRegistry(), trio.Event()
    bodies = 0

    async def handle(request: Request) -> Reply:
        nonlocal bodies
        if request.method == "PUT" and "/uploads/" in request.path:
            bodies += 1
            if bodies > 1:
                second.set()
            await second.wait()  # the first is stored when the second has come
        return fake.handle(request)

    async with serve(handle) as server:
        fake.server = server
        with trio.fail_after(20):
            await push(fake, Image(), "app:1")
    assert {digest for _, digest in fake.held} == digests(Image())


async def test_a_session_is_there_when_the_turn_of_a_blob_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.registry.pusher._UPLOADS", 1)
    image, fake, sessions = Image(), PushRegistry(), trio.Event()

    class Slow(MemoryBlob):
        async def chunks(self, start: int, end: int) -> AsyncGenerator[bytes]:
            await sessions.wait()  # the first body goes when there is a session for each
            async for chunk in super().chunks(start, end):
                yield chunk

    class SlowContent(MemoryContent):
        @asynccontextmanager
        async def open(self, descriptor: Descriptor) -> AsyncIterator[MemoryBlob]:
            yield Slow(self.blobs[descriptor.digest])

    async def handle(request: Request) -> Reply:
        reply = fake.handle(request)
        if fake.lines().count("POST app/blobs/uploads/") == len(digests(image)):
            sessions.set()
        return reply

    async with serve(handle) as server, pusher() as client:
        fake.server = server
        with trio.fail_after(20):
            await client.push(target(image), SlowContent.of(image), [reference.parse(f"{fake.host}/app:1")])
    assert {digest for _, digest in fake.held} == digests(image)


async def test_several_tags_and_repositories_share_their_blobs() -> None:
    image = Image()
    async with push_registry() as fake:
        content = await push(fake, image, "app:1", "app:2", "team/app:1")
        assert len(content.opened) == 3
        assert fake.lines("PUT").count("PUT app/blobs/uploads/N") == 3
        assert {fake.manifests[name][0] for name in (("app", "1"), ("app", "2"), ("team/app", "1"))} == {image.manifest}
        mounts = [r for r in fake.server.requests if r.query.startswith("mount=")]
        assert {r.path for r in mounts} == {"/v2/team/app/blobs/uploads/"}
        assert len(mounts) == 3
        assert fake.sessions == {}


async def test_images_that_are_pushed_at_once_send_a_common_layer_once() -> None:
    images = [Image(layers=(b"common", name)) for name in (b"one", b"two", b"three")]
    content = MemoryContent.of(*images)
    async with push_registry() as fake, pusher() as client, trio.open_nursery() as nursery:
        for number, image in enumerate(images):
            nursery.start_soon(client.push, target(image), content, [reference.parse(f"{fake.host}/app{number}:1")])
    assert content.opened.count(Digest.sha256(b"common")) == 1
    assert len(fake.manifests) == 6


async def test_a_pusher_asks_once_for_a_blob() -> None:
    images = [Image(layers=(b"common", name)) for name in (b"one", b"two")]
    content = MemoryContent.of(*images)
    async with push_registry() as fake, pusher() as client:
        for image in images:
            await client.push(target(image), content, [reference.parse(f"{fake.host}/app:1")])
        assert fake.lines("HEAD").count(f"HEAD app/blobs/{Digest.sha256(b'common')}") == 1


async def test_a_push_by_digest_has_no_tag() -> None:
    image = Image()
    async with push_registry() as fake:
        await push(fake, image, "app")
        assert list(fake.manifests) == [("app", str(Digest.sha256(image.manifest)))]


async def test_children_come_before_their_index() -> None:
    images = [Image(architecture=name, layers=(name.encode(),)) for name in ("amd64", "arm64")]
    inner = index(images[1].entry())
    entry = {"mediaType": types.OCI_INDEX, "digest": str(Digest.sha256(inner)), "size": len(inner)}
    outer = index(images[0].entry(), entry)
    content = MemoryContent.of(*images)
    content.blobs |= {Digest.sha256(raw): raw for raw in (inner, outer)}
    root = Descriptor(media_type=types.OCI_INDEX, digest=Digest.sha256(outer), size=len(outer))
    async with push_registry() as fake, pusher() as client:  # the registry refuses an index that comes too early
        await client.push(root, content, [reference.parse(f"{fake.host}/app:1")])
        puts = [line for line in fake.lines("PUT") if "manifests" in line]
    assert puts[-2:] == [f"PUT app/manifests/{Digest.sha256(inner)}", "PUT app/manifests/1"]
    assert len(puts) == 4


async def test_what_may_not_be_distributed_stays_where_it_is() -> None:
    foreign = {
        "mediaType": types.DOCKER_LAYER_FOREIGN,
        "digest": str(Digest.sha256(b"?")),
        "size": 1,
        "urls": ["http://x/"],
    }
    image = Image(oci=False)
    image.manifest = image.manifest.replace(
        b'"layers": [', b'"layers": [' + str(foreign).replace("'", '"').encode() + b","
    )
    plan = await read_plan(target(image), MemoryContent.of(image))
    assert {blob.digest for blob in plan.blobs} == digests(image)
    kinds = ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", types.OCI_LAYER_ZSTD)
    layers = [Descriptor(media_type=kind, digest=Digest.sha256(b"?"), size=1) for kind in kinds]
    assert [layer.is_foreign for layer in layers] == [True, False]


async def test_a_document_that_is_not_what_it_is_called() -> None:
    image, other = Image(), Image(layers=(b"other",))
    content = MemoryContent.of(image)
    content.blobs[Digest.sha256(image.manifest)] = other.manifest
    with pytest.raises(InvalidImage, match="is not what it is called"):
        await read_plan(target(image), content)


# --- mounts -------------------------------------------------------------------------------------------------


def test_where_a_blob_is_mounted_from() -> None:
    origins = [
        "r.io/other/base",
        "docker.io/library/base",
        "r.io/team/base",
        "r.io/team/app",
        "https://r.io/x",
        "r.io/z",
    ]
    assert mount_sources(origins, reference.parse("r.io/team/app:1")) == ("team/base", "other/base", "z")
    assert mount_sources(origins, reference.parse("elsewhere.io/app")) == ()


async def test_a_layer_of_the_same_registry_is_mounted() -> None:
    image = Image()
    content = MemoryContent.of(image)
    layer = Digest.sha256(image.layers[0])
    async with push_registry(bearer="user:secret") as fake:
        content.known[layer] = ["elsewhere.io/base", f"{fake.host}/base"]
        fake.held["base", str(layer)] = image.layers[0]
        async with pusher(Logins(**{fake.host: "user:secret"})) as client:
            await client.push(target(image), content, [reference.parse(f"{fake.host}/app:1")])
        assert fake.held["app", str(layer)] == image.layers[0]
        tokens = {r.query for r in fake.server.seen("GET", "/token")}
    assert layer not in content.opened
    assert {q.partition("&")[2] for q in tokens} == {
        "scope=repository%3Aapp%3Apull%2Cpush&account=user",
        "scope=repository%3Aapp%3Apull%2Cpush&scope=repository%3Abase%3Apull&account=user",
    }


async def test_a_mount_that_does_not_succeed_is_an_upload() -> None:
    image = Image(layers=(b"layer",))
    content = MemoryContent.of(image)
    layer = Digest.sha256(b"layer")

    def no_right(request: Request) -> Reply | None:
        return Reply(status=403) if "from=secret" in request.query else None

    async with push_registry(rules=[no_right]) as fake, pusher() as client:
        content.known[layer] = [f"{fake.host}/{name}" for name in ("gone", "secret", "gone2")]
        await client.push(target(image), content, [reference.parse(f"{fake.host}/app:1")])
        assert fake.held["app", str(layer)] == b"layer"
        assert fake.sessions == {}  # what the first refused mount began is given up
        begun = [r.query.partition("from=")[2] for r in fake.server.requests if r.method == "POST"]
    assert sorted(begun) == ["", "gone", "gone2", "secret"]  # the config, three attempts, and no request more


# --- what is believed ---------------------------------------------------------------------------------------


async def test_a_registry_that_claims_a_blob_it_has_not() -> None:
    image = Image(layers=(b"layer",))

    def claim(request: Request) -> Reply | None:
        size = len(image.layers[0])
        return Reply(length=size) if request.method == "HEAD" and "/blobs/" in request.path else None

    async with push_registry(rules=[claim]) as fake:
        content = await push(fake, image, "app:1")
        assert ("app", "1") in fake.manifests
    assert Digest.sha256(b"layer") in content.opened


async def test_a_blob_of_another_length_is_another_blob() -> None:
    def claim(request: Request) -> Reply | None:
        return Reply(length=7) if request.method == "HEAD" and "/blobs/" in request.path else None

    async with push_registry(rules=[claim]) as fake:
        await push(fake, Image(), "app:1")
        assert fake.lines("PUT").count("PUT app/manifests/1") == 1


async def test_a_registry_that_alters_a_manifest() -> None:
    def alter(request: Request) -> Reply | None:
        other = {"docker-content-digest": str(Digest.sha256(b"other"))}
        return Reply(status=201, headers=other) if request.method == "PUT" and "manifests" in request.path else None

    async with push_registry(rules=[alter]) as fake:
        with pytest.raises(RegistryError, match="stored another manifest than"):
            await push(fake, Image(), "app:1")


# --- whom it talks to ---------------------------------------------------------------------------------------


async def test_a_mirror_is_never_pushed_to() -> None:
    image = Image()
    async with push_registry() as fake, push_registry() as mirror:
        hosts = {fake.host: HostConfig(mirrors=(mirror.host,))}
        async with pusher(hosts=hosts) as client:
            await client.push(target(image), MemoryContent.of(image), [reference.parse(f"{fake.host}/app:1")])
        assert mirror.server.requests == []
        assert ("app", "1") in fake.manifests


async def test_an_upload_elsewhere_gets_no_credentials() -> None:
    image = Image()
    async with push_registry(basic="user:secret") as fake:
        async with serve(lambda request: fake._content(request)) as elsewhere:
            fake.location = elsewhere.url
            await push(fake, image, "app:1", logins=Logins(**{fake.host: "user:secret"}))
            assert {r.method for r in elsewhere.requests} == {"PUT"}
            assert all("authorization" not in r.headers for r in elsewhere.requests)
        assert ("app", "1") in fake.manifests


async def test_a_body_is_not_redirected_to_another_host() -> None:
    async with serve(lambda request: Reply(status=201)) as elsewhere:

        def away(request: Request) -> Reply | None:
            return Reply(status=307, headers={"location": elsewhere.url}) if request.method == "PUT" else None

        async with push_registry(rules=[away]) as fake:
            with pytest.raises(RegistryError, match="HTTP status 307"):
                await push(fake, Image(), "app:1")
        assert elsewhere.requests == []


async def test_insecure_means_plain_where_there_is_no_tls() -> None:
    image = Image()
    async with push_registry() as fake:
        hosts = {fake.host: HostConfig(plain_http=False)}
        name = [reference.parse(f"{fake.host}/app:1")]
        async with pusher(hosts=hosts) as client:
            with pytest.raises(SourceError, match="cannot reach"):
                await client.push(target(image), MemoryContent.of(image), name)
        async with pusher(hosts=hosts, insecure=[fake.host]) as client:
            await client.push(target(image), MemoryContent.of(image), name)
        assert ("app", "1") in fake.manifests


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (404, "NAME_UNKNOWN", "makes no repositories by itself"),
        (405, "UNSUPPORTED", "takes no pushes"),
        (403, "DENIED", "`pybuild login "),
        (413, "SIZE", "raise its limit"),
    ],
)
async def test_a_refused_upload_says_what_to_try(status: int, code: str, hint: str) -> None:
    def refuse(request: Request) -> Reply | None:
        body = f'{{"errors":[{{"code":"{code}","message":"no such luck"}}]}}'.encode()
        return Reply(status=status, body=body) if request.method == "POST" else None

    async with push_registry(rules=[refuse]) as fake:
        with pytest.raises(RegistryError, match=rf"no such luck \({code}\)") as caught:
            await push(fake, Image(), "app:1")
    assert hint in (caught.value.hint or "")


async def test_a_refused_manifest_says_what_to_try() -> None:
    def refuse(request: Request) -> Reply | None:
        return Reply(status=415) if request.method == "PUT" and "manifests" in request.path else None

    async with push_registry(rules=[refuse]) as fake:
        with pytest.raises(RegistryError, match="unsupported media type") as caught:
            await push(fake, Image(), "app:1")
    assert "oci-mediatypes=false" in (caught.value.hint or "")


async def test_the_account_is_named_and_its_password_is_not() -> None:
    async with push_registry(basic="user:secret") as fake:
        with pytest.raises(RegistryError) as caught:
            await push(fake, Image(), "app:1", logins=Logins(**{fake.host: "somebody:hunter2"}))
    assert f"'somebody'; `pybuild login {fake.host}`" in (caught.value.hint or "")
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint}"
    async with push_registry(bearer="user:secret") as fake:
        with pytest.raises(RegistryError) as caught:
            await push(fake, Image(), "app:1")
    assert f"log in with `pybuild login {fake.host}`" in (caught.value.hint or "")
