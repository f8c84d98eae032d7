"""Pulling from a registry that behaves, and from registries that do not."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from buildengine import reference
from buildengine.digest import Digest
from buildengine.errors import RegistryError, SourceError
from buildengine.platform import Platform, parse
from tests.fakes.http_server import Reply, Request, serve
from tests.fakes.registry_server import (
    FakeRegistry,
    Image,
    Logins,
    MemorySink,
    client,
    descriptor,
    fake_registry,
    fetch,
    index,
)
from worker.oci import jsonbytes, types
from worker.oci.document import InvalidImage
from worker.registry.hosts import HostConfig, RegistryConfig
from worker.registry.puller import RemoteImage, open_registry

AMD64 = parse("linux/amd64")


async def resolve(fake: FakeRegistry, name: str = "app:1", platform: Platform = AMD64, **more: Any) -> RemoteImage:
    async with client() as registry:
        return await registry.resolve(reference.parse(f"{fake.host}/{name}"), platform, **more)


# --- resolve ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("oci", [True, False])
async def test_a_single_image_keeps_the_bytes_it_was_read_from(oci: bool) -> None:
    image = Image(oci=oci)
    async with fake_registry() as fake:
        digest = fake.put("app", "1", image)
        pulled = await resolve(fake)
    assert pulled.digest == digest == pulled.manifest.digest
    assert pulled.manifest.raw == image.manifest
    assert pulled.config.raw == image.config
    assert [layer.digest for layer, _ in pulled.layers] == [Digest.sha256(layer) for layer in image.layers]
    assert [diff for _, diff in pulled.layers] == list(pulled.config.diff_ids)
    assert pulled.origin == f"{fake.host}/app"
    assert pulled.reference.digest == digest


async def test_layers_are_not_fetched_by_resolve() -> None:
    image = Image()
    async with fake_registry() as fake:
        fake.put("app", "1", image)
        await resolve(fake)
        paths = [request.path for request in fake.server.requests]
    assert paths == ["/v2/app/manifests/1", f"/v2/app/blobs/{Digest.sha256(image.config)}"]


async def test_the_index_is_kept_and_the_best_platform_chosen() -> None:
    amd, arm = Image(), Image(architecture="arm64", layers=(b"arm",))
    noise = {"architecture": "unknown", "os": "unknown"}
    async with fake_registry() as fake:
        for image in (amd, arm):
            fake.put("app", "", image)
        raw = index(arm.entry(), amd.entry(**noise), amd.entry())
        fake.put_manifest("app", "1", raw)
        pulled = await resolve(fake)
        armed = await resolve(fake, platform=parse("linux/arm64"))
    assert pulled.digest == Digest.sha256(raw)
    assert pulled.index is not None
    assert pulled.index.raw == raw
    assert pulled.manifest.raw == amd.manifest
    assert armed.manifest.raw == arm.manifest


async def test_a_platform_that_is_not_there_names_those_that_are() -> None:
    async with fake_registry() as fake:
        arm = Image(architecture="arm64")
        fake.put("app", "", arm)
        fake.put_manifest("app", "1", index(arm.entry()))
        with pytest.raises(RegistryError, match="has no image for linux/amd64") as caught:
            await resolve(fake)
    assert caught.value.hint == "it offers linux/arm64"


async def test_entries_without_a_platform_are_opened_and_artifacts_among_them_passed_over() -> None:
    amd, arm = Image(), Image(architecture="arm64")
    artifact = Image(manifest=jsonbytes.compact({"schemaVersion": 2, "config": descriptor(b"{}", "x/y"), "layers": []}))
    async with fake_registry() as fake:
        entries = []
        for image in (artifact, arm, amd):
            fake.put("app", "", image)
            entries.append({key: value for key, value in image.entry().items() if key != "platform"})
        fake.put_manifest("app", "1", index(*entries))
        assert (await resolve(fake)).manifest.raw == amd.manifest


async def test_an_index_in_an_index_is_followed_but_not_for_ever() -> None:
    image = Image()
    platform = {"architecture": "amd64", "os": "linux"}
    async with fake_registry() as fake:
        fake.put("app", "", image)
        raw = index(image.entry())
        fake.put_manifest("app", "0", raw)
        for level in range(1, 5):
            raw = index(descriptor(raw, types.OCI_INDEX, platform=platform))
            fake.put_manifest("app", str(level), raw)
        assert (await resolve(fake, "app:2")).manifest.raw == image.manifest
        with pytest.raises(InvalidImage, match="nested more than 3 deep"):
            await resolve(fake, "app:3")


async def test_a_digest_pin_is_honoured() -> None:
    async with fake_registry() as fake:
        old = fake.put("app", "1", Image(layers=(b"old",)))
        fake.put("app", "1", Image(layers=(b"new",)))
        pulled = await resolve(fake, f"app:1@{old}")
        fake.manifests["app", str(old)] = fake.manifests["app", "1"]
        with pytest.raises(RegistryError, match=f"sent another manifest .* than {old}"):
            await resolve(fake, f"app:1@{old}")
    assert pulled.digest == old


async def test_a_registry_that_announces_another_digest_than_it_sends_is_refused() -> None:
    image = Image()

    def lie(request: Request) -> Reply | None:
        headers = {"docker-content-digest": "sha256:" + "0" * 64}
        return Reply(body=image.manifest, headers=headers) if "/manifests/" in request.path else None

    async with fake_registry(rules=[lie]) as fake:
        with pytest.raises(RegistryError, match="sent another manifest"):
            await resolve(fake)


async def test_a_known_tag_costs_one_head_request() -> None:
    image = Image()
    async with fake_registry() as fake:
        digest = fake.put("app", "1", image)
        store = {Digest.sha256(raw): raw for raw in (image.manifest, image.config)}
        pulled = await resolve(fake, known=store.get, expected=digest)
        assert [(r.method, r.path) for r in fake.server.requests] == [("HEAD", "/v2/app/manifests/1")]
        assert pulled.manifest.raw == image.manifest
        newer = fake.put("app", "1", Image(layers=(b"newer",)))
        assert (await resolve(fake, known=store.get, expected=digest)).digest == newer


async def test_a_registry_without_head_is_asked_by_get() -> None:
    image = Image()
    async with fake_registry(rules=[lambda r: Reply(status=405) if r.method == "HEAD" else None]) as fake:
        digest = fake.put("app", "1", image)
        store = {Digest.sha256(raw): raw for raw in (image.manifest, image.config)}
        assert (await resolve(fake, known=store.get, expected=digest)).digest == digest


async def test_what_is_missing_is_named_with_a_hint() -> None:
    async with fake_registry() as fake:
        with pytest.raises(RegistryError) as caught:
            await resolve(fake, "gone:1")
    assert str(caught.value) == f"{fake.host}: {fake.host}/gone:1: manifest unknown (MANIFEST_UNKNOWN)"
    assert caught.value.status == 404
    assert caught.value.code == "MANIFEST_UNKNOWN"
    assert caught.value.hint is not None


SCHEMA1 = b'{"schemaVersion": 1, "name": "app", "tag": "1", "fsLayers": [{"blobSum": "sha256:x"}]}'


@pytest.mark.parametrize(
    ("raw", "media_type", "problem"),
    [
        (b"<html>login here</html>", "text/html", "is not valid JSON"),
        (b"[]", types.OCI_MANIFEST, "is not a JSON object"),
        (b"{}", types.OCI_MANIFEST, "config is missing"),
        (b"[" * 100_000, types.OCI_MANIFEST, "nested too deeply"),
        (b'{"schemaVersion": 2, "config": 5}', types.OCI_MANIFEST, "config is not an object"),
        (SCHEMA1, types.DOCKER_SCHEMA1[1], "schema 1"),
        (SCHEMA1, "application/json", "schema 1"),
        (index(Image().entry()), types.OCI_MANIFEST, "calls itself"),
        (b'{"manifests": [], "layers": []}', types.OCI_MANIFEST, "both an image manifest and an index"),
        (b'{"mediaType": "a/b"}', "", "not that of an image"),
        (Image().manifest.replace(b'"size": 9', b'"size": -1'), types.OCI_MANIFEST, r"layers\[0\].size is not between"),
        (Image().manifest.replace(b"sha256:", b"md5:"), types.OCI_MANIFEST, "config.digest is not a digest"),
    ],
)
async def test_documents_that_cannot_be_manifests(raw: bytes, media_type: str, problem: str) -> None:
    async with fake_registry() as fake:
        fake.put_manifest("app", "1", raw, media_type)
        with pytest.raises(InvalidImage, match=problem):
            await resolve(fake)


async def test_a_manifest_is_bounded_whether_or_not_its_length_is_announced() -> None:
    big = Reply(body=b" " * (types.MANIFEST_LIMIT + 1))
    absurd = Reply(body=b"", length="9" * 30)
    for reply in (big, absurd):
        async with fake_registry(rules=[lambda request, reply=reply: reply]) as fake:
            with pytest.raises(SourceError):
                await resolve(fake)


async def test_a_config_must_be_what_the_manifest_says() -> None:
    image = Image()
    async with fake_registry() as fake:
        fake.put("app", "1", image)
        fake.blobs[str(Digest.sha256(image.config))] = b"x" * len(image.config)
        with pytest.raises(RegistryError, match="is not sha256:"):
            await resolve(fake)
        fake.blobs[str(Digest.sha256(image.config))] = b"short"
        with pytest.raises(RegistryError, match="announces 5 bytes; it should be"):
            await resolve(fake)


async def test_layers_and_diff_ids_must_be_as_many() -> None:
    config = b'{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":[]}}'
    async with fake_registry() as fake:
        fake.put("app", "1", Image(config=config))
        with pytest.raises(InvalidImage, match="has 2 layers, its config names 0"):
            await resolve(fake)


async def test_an_artifact_is_no_image() -> None:
    raw = jsonbytes.compact(
        {"schemaVersion": 2, "config": descriptor(b"{}", "application/vnd.cncf.helm"), "layers": []}
    )
    async with fake_registry() as fake:
        fake.put_manifest("app", "1", raw, types.OCI_MANIFEST)
        with pytest.raises(InvalidImage, match=r"is not an image but 'application/vnd\.cncf\.helm'"):
            await resolve(fake)


# --- blobs ------------------------------------------------------------------------------------------------

BLOB = bytes(range(256)) * 10_000  # 2.5 MB: more than two steps


async def test_a_blob_comes_whole_with_progress() -> None:
    seen: list[tuple[Digest, int, int]] = []
    digest = Digest.sha256(BLOB)
    async with fake_registry(blobs={str(digest): BLOB}) as fake, client() as registry:
        sink = MemorySink()
        wanted = types.Descriptor(media_type="x", digest=digest, size=len(BLOB))
        await registry.fetch_blob(wanted, (f"{fake.host}/app",), sink, on_progress=lambda *event: seen.append(event))
    assert sink.data == BLOB
    assert seen[-1] == (digest, len(BLOB), len(BLOB))
    assert [current for _, current, _ in seen] == sorted(current for _, current, _ in seen)


async def test_a_sink_that_hashes_is_believed_about_its_own_digest() -> None:
    class Hashing(MemorySink):
        @property
        def digest(self) -> Digest:
            return Digest.sha256(self.data)

    wanted = types.Descriptor(media_type="x", digest=Digest.sha256(BLOB), size=len(BLOB))
    replies = iter([Reply(body=BLOB), Reply(body=b"X" * len(BLOB))])
    async with fake_registry(rules=[lambda request: next(replies)]) as fake, client() as registry:
        await registry.fetch_blob(wanted, (f"{fake.host}/app",), Hashing())
        with pytest.raises(RegistryError, match="sent other bytes than"):
            await registry.fetch_blob(wanted, (f"{fake.host}/app",), Hashing())


async def test_an_empty_blob() -> None:
    async with fake_registry(blobs={str(Digest.sha256(b"")): b""}) as fake:
        assert await fetch(fake, b"") == b""


async def test_a_cut_connection_is_resumed_where_it_broke() -> None:
    cuts = iter([1_500_000, 700_000])

    def cut(request: Request) -> Reply | None:
        size = next(cuts, None)
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        headers = {"content-range": f"bytes {start}-{len(BLOB) - 1}/{len(BLOB)}"} if start else {}
        reply = Reply(status=206 if start else 200, body=BLOB[start:], headers=headers, cut=size)
        return None if size is None else reply

    async with fake_registry(blobs={str(Digest.sha256(BLOB)): BLOB}, rules=[cut]) as fake:
        assert await fetch(fake, BLOB) == BLOB
        ranges = [request.headers.get("range") for request in fake.server.requests]
    assert ranges == [None, "bytes=1500000-", "bytes=2200000-"]


async def test_a_server_that_ignores_ranges_is_read_from_the_start_again() -> None:
    replies = iter([Reply(body=BLOB, cut=1_500_000), Reply(body=BLOB)])
    async with fake_registry(rules=[lambda request: next(replies)]) as fake:
        assert await fetch(fake, BLOB) == BLOB


async def test_a_blob_that_always_breaks_off_fails_in_the_end() -> None:
    async with fake_registry(rules=[lambda request: Reply(body=BLOB, cut=100)]) as fake:
        with pytest.raises(SourceError, match="broke off"):
            await fetch(fake, BLOB)
        assert len(fake.server.requests) <= 30


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (Reply(body=b"X" * len(BLOB)), "sent other bytes than"),
        (Reply(body=BLOB + b"more"), "announces .* bytes; it should be"),
        (Reply(body=BLOB[:-1]), "announces .* bytes; it should be"),
        (Reply(body=BLOB, length=10**17), "announces .* bytes; it should be"),
        (Reply(body=BLOB, headers={"content-encoding": "gzip"}), "content encoding"),
        (Reply(status=206, body=BLOB, headers={"content-range": "bytes 5-9/10"}), "another range"),
        (Reply(status=403, body=b'{"errors":[{"code":"DENIED","message":"no\\u001b[31m!"}]}'), r"no \[31m! \(DENIED\)"),
    ],
)
async def test_blobs_that_are_not_what_was_asked_for(reply: Reply, problem: str) -> None:
    async with fake_registry(rules=[lambda request: reply]) as fake:
        with pytest.raises(RegistryError, match=problem):
            await fetch(fake, BLOB)
        assert len(fake.server.requests) <= 4


async def test_what_is_temporary_is_tried_again_and_what_is_not_is_not() -> None:
    for status, requests in ((429, 4), (503, 4), (500, 4), (400, 1), (403, 1), (404, 1)):
        async with fake_registry(rules=[lambda request, status=status: Reply(status=status)]) as fake:
            with pytest.raises(RegistryError):
                await fetch(fake, BLOB)
            assert len(fake.server.requests) == requests


async def test_a_registry_says_how_long_to_wait(autojump_clock: trio.testing.MockClock) -> None:
    replies = iter([Reply(status=429, headers={"retry-after": "7"}), Reply(body=b"data")])
    async with fake_registry(rules=[lambda request: next(replies)]) as fake:
        start = trio.current_time()
        assert await fetch(fake, b"data") == b"data"
        assert trio.current_time() - start >= 7


async def test_no_more_downloads_at_once_than_allowed() -> None:
    running = most = 0

    async def slowly(request: Request) -> Reply:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        running -= 1
        return Reply(body=b"data")

    wanted = types.Descriptor(media_type="x", digest=Digest.sha256(b"data"), size=4)
    async with serve(slowly) as server, client(max_downloads=2) as registry, trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(registry.fetch_blob, wanted, (f"{server.host}/app",), MemorySink())
    assert most == 2


async def test_nothing_listens(autojump_clock: trio.testing.MockClock) -> None:
    """Nobody is waited for where nobody is."""
    async with open_registry(RegistryConfig(), Logins()) as registry:
        start = trio.current_time()
        with pytest.raises(
            SourceError, match=r"cannot reach http://127\.0\.0\.1:1/v2/app/manifests/1: .*refused"
        ) as caught:
            await registry.resolve(reference.parse("127.0.0.1:1/app:1"), AMD64)
        assert caught.value.hint == "nothing listens there: check the host and the port"
        wanted = types.Descriptor(media_type="x", digest=Digest.sha256(b"x"), size=1)
        with pytest.raises(SourceError, match="refused"):
            await registry.fetch_blob(wanted, ("127.0.0.1:1/app",), MemorySink())
        assert trio.current_time() == start


async def test_a_registry_that_restarts_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    image = Image()
    async with open_registry(RegistryConfig(retry_delays=(1.0, 2.0)), Logins()) as registry:
        async with fake_registry() as fake:
            fake.put("app", "1", image)
            name = reference.parse(f"{fake.host}/app:1")
            await registry.resolve(name, AMD64)
        start = trio.current_time()
        with pytest.raises(SourceError, match="refused"):
            await registry.resolve(name, AMD64)
        assert trio.current_time() == start + 3.0


# --- mirrors ----------------------------------------------------------------------------------------------


async def test_a_mirror_is_asked_first_and_the_registry_when_the_mirror_cannot() -> None:
    image = Image()
    async with fake_registry() as mirror, fake_registry() as origin:
        hosts = {origin.host: HostConfig(mirrors=(f"{mirror.host}/cache",))}
        mirror.put("cache/app", "1", image)
        for fake in (mirror, origin):
            fake.put("app", "1", image)
        async with client(hosts=hosts) as registry:
            name = reference.parse(f"{origin.host}/app:1")
            pulled = await registry.resolve(name, AMD64)
            assert not origin.server.requests
            assert pulled.origin == f"{origin.host}/app"
            assert mirror.server.requests[0].path == "/v2/cache/app/manifests/1"
            assert {request.query for request in mirror.server.requests} == {f"ns={origin.host.replace(':', '%3A')}"}
            mirror.manifests.clear()
            assert (await registry.resolve(name, AMD64)).digest == pulled.digest
            mirror.rules.append(lambda request: Reply(status=503))
            sink = MemorySink()
            await registry.fetch_blob(pulled.layers[0][0], (pulled.origin,), sink)
    assert sink.data == image.layers[0]
    assert {request.query for request in origin.server.requests} == {""}


async def test_the_error_is_the_registrys_own_not_the_mirrors() -> None:
    async with fake_registry(rules=[lambda request: Reply(status=418)]) as mirror, fake_registry() as origin:
        hosts = {origin.host: HostConfig(mirrors=(mirror.host,))}
        async with client(hosts=hosts) as registry:
            with pytest.raises(RegistryError, match=f"{origin.host}: .*manifest unknown"):
                await registry.resolve(reference.parse(f"{origin.host}/app:1"), AMD64)
