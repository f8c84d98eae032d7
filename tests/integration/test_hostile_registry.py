"""Registries that lie, cut off, redirect and ask for passwords: what a build says of them, and what they get."""

from __future__ import annotations

import base64
import gzip
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.fakes.hostile import WANTED, Attack, Outcome
from tests.fakes.hostile_archives import compact, digest, header, pax, tar
from tests.fakes.http_server import Reply, Request, serve
from tests.fakes.registry_server import FakeRegistry, Image, descriptor, fake_registry, index
from worker.oci.types import OCI_INDEX, OCI_MANIFEST

pytest_plugins = ["tests.fakes.hostile_fixtures"]

PLAIN = tar(("bin/x", "file"))
LAYER = gzip.compress(PLAIN, mtime=0)


def image(layer: bytes = LAYER, plain: bytes = PLAIN, **config: object) -> Image:
    rootfs = {"type": "layers", "diff_ids": [digest(plain)]}
    document = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs, **config}
    return Image(layers=[layer], config=compact(document))


async def build(attack: Attack, registry: FakeRegistry, more: str = "COPY Dockerfile /made\n", *flags: str) -> Outcome:
    """A build on the image evil:1 of the registry, in a state directory that does not have it."""
    run = partial(attack.build, f"FROM {registry.host}/evil:1\n{more}", *flags, root=attack.directory / "root")
    return await trio.to_thread.run_sync(run)


def on_blob(reply: Reply) -> Callable[[Request], Reply | None]:
    return lambda request: reply if f"/blobs/{digest(LAYER)}" in request.path else None


def on_manifest(body: bytes, **headers: str) -> Callable[[Request], Reply | None]:
    sent = {"content-type": OCI_MANIFEST, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return lambda request: Reply(body=body, headers=sent) if "/manifests/" in request.path else None


def moved(location: str) -> Reply:
    return Reply(status=307, headers={"location": location})


# name: (how it answers, what the report says, the line it points at: 1 FROM, 2 what needs the files)
LIES: dict[str, tuple[Callable[[Request], Reply | None], str, int]] = {
    "another manifest": (
        on_manifest(image().manifest, docker_content_digest=f"sha256:{'0' * 64}"),
        "sent another manifest for",
        1,
    ),
    "a manifest of megabytes": (on_manifest(b"x" * (5 << 20)), "more than the 4194304 allowed", 1),
    "a manifest of brackets": (on_manifest(b"[" * 200_000), "is nested too deeply", 1),
    "a manifest of braces": (on_manifest(b'{"a":' * 200_000), "is nested too deeply", 1),
    "a manifest that is not UTF-8": (on_manifest(b"\xff\xfe"), "is not valid JSON", 1),
    "a page": (lambda request: Reply(body=b"<html>", headers={"content-type": "text/html"}), "is not valid JSON", 1),
    "a blob in a circle": (on_blob(moved("/v2/evil/blobs/" + digest(LAYER))), "more than 10 redirects", 2),
    "a blob in a file": (on_blob(moved("file:///etc/shadow")), "redirects to 'file:///etc/shadow', which is not", 2),
    "a blob at no address": (on_blob(moved("http://[::bad")), "redirects to what is not a URL", 2),
    "a blob of exabytes": (on_blob(Reply(length="9" * 20)), "announces 99999999999999999999 bytes", 2),
    "a blob that is gone": (on_blob(Reply(status=404)), "not found", 2),
    "a blob for nobody": (on_blob(Reply(status=403)), "access denied", 2),
    "a token from elsewhere": (
        lambda request: Reply(status=401, headers={"www-authenticate": 'Bearer realm="http://evil.invalid/token"'}),
        "its token service http://evil.invalid/token is not encrypted",
        1,
    ),
    "a token from a file": (
        lambda request: Reply(status=401, headers={"www-authenticate": 'Bearer realm="file:///etc/shadow"'}),
        "names the token service 'file:///etc/shadow', which is not an http URL",
        1,
    ),
    "an odd challenge": (
        lambda request: Reply(status=401, headers={"www-authenticate": "Negotiate"}),
        "basic and bearer are supported",
        1,
    ),
    "no challenge": (lambda request: Reply(status=401), "it asks for authentication by nothing", 1),
    "escape sequences": (
        lambda request: Reply(
            status=403, body=compact({"errors": [{"code": "NO\x1b[31m", "message": "go \x1b]0;x\x07\nhint: evil"}]})
        ),
        "go ]0;x hint: evil (NO [31m)",
        1,
    ),
}


@pytest.mark.parametrize("name", LIES)
async def test_lies(attack: Attack, name: str) -> None:
    rule, fragment, line = LIES[name]
    async with fake_registry(rules=[rule]) as registry:
        registry.put("evil", "1", image())
        (await build(attack, registry)).refused(fragment, line=line)


ALTERED = {
    "altered": (LAYER[:-1] + b"x", "sent other bytes than"),
    "short": (LAYER[:-5], "bytes; it should be"),
    "long": (LAYER + b"more", "bytes; it should be"),
    "empty": (b"", "bytes; it should be"),
}


@pytest.mark.parametrize("name", ALTERED)
async def test_blobs_that_are_others(attack: Attack, name: str) -> None:
    data, fragment = ALTERED[name]
    async with fake_registry() as registry:
        registry.put("evil", "1", image())
        registry.blobs[digest(LAYER)] = data
        (await build(attack, registry)).refused(digest(LAYER), fragment, line=2)
        registry.blobs[digest(LAYER)] = LAYER
        (await build(attack, registry)).harmless()


# name: (layer, what the report says; None: it stays inside)
LAYERS: dict[str, tuple[bytes, str | None]] = {
    "a name that climbs": (tar(("../" * 12 + f"{WANTED}", "file")), "has an entry outside its root"),
    "a link and a file behind it": (tar(("l", "link", "/" + WANTED), ("l/x", "file")), None),
    "a hard link to the host": (tar(("h", "hard", "/etc/shadow")), "which is not a file"),
    "a whiteout of the parent": (tar((".wh...", "file")), "has an invalid whiteout: .wh..."),
    "a whiteout of the directory": (tar((".wh..", "file")), "has an invalid whiteout"),
    "a whiteout of nothing": (tar((".wh.", "file")), "has an invalid whiteout"),
    "a whiteout of another directory": (tar(("a/.wh...", "file")), "has an invalid whiteout"),
    "a file below a whiteout": (tar((".wh.a/b", "file")), "has an entry below a whiteout"),
    "a whiteout of the root": (tar((".wh..wh..opq", "file"), ("x", "file")), None),
    "a device": (tar(("loop", "block", 7, 0), ("null", "char", 1, 3)), None),
    "a whiteout of overlayfs": (tar(("w", "char", 0, 0)), None),
    "half an archive": (tar(("a", "file", bytes(5000)))[:2000], "ends in the middle of a"),
    "no archive": (b"hello" * 200, "not a tar archive"),
}


@pytest.mark.parametrize("name", LAYERS)
async def test_layers(attack: Attack, name: str) -> None:
    plain, fragment = LAYERS[name]
    async with fake_registry() as registry:
        registry.put("evil", "1", image(gzip.compress(plain, mtime=0), plain))
        outcome = await build(attack, registry)
        if fragment is None:
            outcome.harmless()
        else:
            outcome.refused("layer sha256:", fragment, line=2)


async def test_layers_cannot_talk_to_overlayfs(attack: Attack) -> None:
    """Its extended attributes could show other directories of the store."""
    marks = {f"SCHILY.xattr.{name}": "/etc" for name in ("trusted.overlay.redirect", "user.overlay.redirect")}
    plain = pax({**marks, "SCHILY.xattr.trusted.overlay.opaque": "y"}) + header(b"d", kind=b"5") + bytes(1024)
    async with fake_registry() as registry:
        registry.put("evil", "1", image(gzip.compress(plain, mtime=0), plain))
        (await build(attack, registry)).harmless()
    found = [path for path in (attack.directory / "root/layers").glob("*/fs/d") if path.is_dir()]
    assert found
    assert all(not any("overlay" in name for name in os.listxattr(path)) for path in found)


async def test_layers_that_are_no_gzip(attack: Attack) -> None:
    async with fake_registry() as registry:
        registry.put("evil", "1", image(b"not gzip at all" * 10, b"x"))
        (await build(attack, registry)).refused("layer sha256:", line=2)
        registry.put("evil", "1", image(LAYER, b"another"))
        (await build(attack, registry)).refused("unpacks to", "its image config promises", line=2)


def _manifest(**layer: object) -> bytes:
    document = json.loads(image().manifest)
    document["layers"][0].update(layer)
    return compact(document)


MANIFESTS: dict[str, tuple[bytes, str, str, int]] = {
    "an empty index": (index(), OCI_INDEX, "has no image for", 1),
    "an index of another platform": (index(image().entry(os="linux", architecture="s390x")), OCI_INDEX, "s390x", 1),
    "an index to nowhere": (
        index(descriptor(b"gone", OCI_MANIFEST, platform={"os": "linux", "architecture": "amd64"})),
        OCI_INDEX,
        "manifest unknown",
        1,
    ),
    "a negative size": (_manifest(size=-1), OCI_MANIFEST, "layers[0].size is not between", 1),
    "an absurd size": (_manifest(size=1 << 49), OCI_MANIFEST, "should have 562949953421312", 2),
    "another size": (_manifest(size=5), OCI_MANIFEST, "it should be 5", 2),
    "a digest that climbs": (_manifest(digest="sha256:../../x"), OCI_MANIFEST, "is not a digest", 1),
    "a withdrawn schema": (compact({"schemaVersion": 1}), OCI_MANIFEST, "schema 1 manifest", 1),
    "both kinds in one": (compact({"manifests": [], "layers": []}), OCI_MANIFEST, "both an image manifest and", 1),
    "too many layers": (
        compact({**json.loads(image().manifest), "layers": json.loads(image().manifest)["layers"] * 600}),
        OCI_MANIFEST,
        "has 600 layers, its config names 1",
        1,
    ),
}


@pytest.mark.parametrize("name", MANIFESTS)
async def test_manifests(attack: Attack, name: str) -> None:
    raw, media_type, fragment, line = MANIFESTS[name]
    async with fake_registry() as registry:
        registry.put("evil", "0", image())
        registry.put_manifest("evil", "1", raw, media_type)
        (await build(attack, registry)).refused(fragment, line=line)


async def test_a_layer_that_only_the_export_needs(attack: Attack) -> None:
    """The image is taken as it is; its layers are fetched when they are written out."""
    async with fake_registry(rules=[on_blob(Reply(status=404))]) as registry:
        registry.put("evil", "1", image())
        outcome = await build(attack, registry, "LABEL a=b\n", "-o", f"type=oci,dest={attack.directory}/image.tar")
        outcome.refused(digest(LAYER), "not found")
        assert "ExceptionGroup" not in outcome.ended.text
    assert not (attack.directory / "image.tar").exists()


async def test_indexes_without_end(attack: Attack) -> None:
    """Each names the next; the last names none that is there."""
    async with fake_registry() as registry:
        inner = index(image().entry())
        for depth in range(6):
            registry.put_manifest("evil", str(depth), inner)
            inner = index(descriptor(inner, OCI_INDEX))
        registry.put_manifest("evil", "1", inner)
        (await build(attack, registry)).refused("has no image for", line=1)


def _home(attack: Attack, configuration: bytes) -> Path:
    (attack.directory / ".docker").mkdir(exist_ok=True)
    (attack.directory / ".docker/config.json").write_bytes(configuration)
    attack.environment["HOME"] = str(attack.directory)
    return attack.directory


async def test_a_redirect_takes_no_password_along(attack: Attack) -> None:
    password = base64.b64encode(b"user:password").decode()
    async with serve(lambda request: Reply(body=LAYER)) as other, fake_registry(basic="user:password") as registry:
        port = other.host.rpartition(":")[2]
        registry.rules = [on_blob(moved(f"http://localhost:{port}/stolen"))]
        registry.put("evil", "1", image())
        _home(attack, compact({"auths": {registry.host: {"auth": password}}}))
        (await build(attack, registry)).harmless()
        assert registry.server.requests[-1].headers["authorization"] == f"Basic {password}"
        assert [request.path for request in other.requests] == ["/stolen"]
        assert "authorization" not in other.requests[0].headers


async def test_a_token_service_elsewhere_gets_no_password(attack: Attack) -> None:
    """The registry names a service of its own host, which sends on to another."""
    async with serve(lambda request: Reply(body=b'{"token":"x"}')) as thief, fake_registry() as registry:
        port = thief.host.rpartition(":")[2]

        def challenge(request: Request) -> Reply | None:
            if request.path == "/token":
                return moved(f"http://localhost:{port}/stolen")
            realm = f'Bearer realm="{registry.server.url}/token",service="x"'
            return (
                None if "authorization" in request.headers else Reply(status=401, headers={"www-authenticate": realm})
            )

        registry.rules = [challenge]
        registry.put("evil", "1", image())
        _home(attack, compact({"auths": {registry.host: {"auth": base64.b64encode(b"user:password").decode()}}}))
        await build(attack, registry)
        assert registry.server.requests
        assert [request.path for request in thief.requests] == ["/stolen"]
        assert all("authorization" not in request.headers for request in thief.requests)
        assert all(b"password" not in request.body for request in thief.requests)


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"auths": 5}', b"\xff", b"[" * 100_000])
async def test_a_docker_configuration_that_is_none(attack: Attack, text: bytes) -> None:
    async with fake_registry(basic="user:password") as registry:
        registry.put("evil", "1", image())
        _home(attack, text)
        (await build(attack, registry)).refused(".docker/config.json")


@pytest.mark.parametrize("helper", ["../../bin/evil", "a/b", "a\nb"])
async def test_a_credential_helper_by_path(attack: Attack, helper: str) -> None:
    async with fake_registry(basic="user:password") as registry:
        registry.put("evil", "1", image())
        _home(attack, compact({"credsStore": helper}))
        (await build(attack, registry)).refused("helper")
