"""The values of flags: what each spelling means, and what a wrong one is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from buildengine.builder import CacheEntry, Export, SecretSource, SshSource
from buildengine.cli import flags
from buildengine.errors import UserError
from buildengine.platform import Platform, local

AMD64 = Platform(os="linux", architecture="amd64")
ARM64 = Platform(os="linux", architecture="arm64")


@pytest.mark.parametrize(
    ("parse", "text", "found"),
    [
        (flags.assignment, "A=b", ("A", "b")),
        (flags.assignment, "A=b=c", ("A", "b=c")),
        (flags.assignment, "A=", ("A", "")),
        (flags.assignment, "A", ("A", None)),
        (flags.output, "out", Export(type="local", dest="out")),
        (flags.output, "./a=b", Export(type="local", dest="./a=b")),
        (flags.output, "-", Export(type="tar", dest="-")),
        (flags.output, "type=local,dest=out", Export(type="local", dest="out")),
        (flags.output, "type=tar", Export(type="tar", dest="-")),
        (flags.output, "type=oci,dest=a.tar", Export(type="oci", dest="a.tar")),
        (flags.output, 'type=oci,"dest=a,b.tar"', Export(type="oci", dest="a,b.tar")),
        (flags.output, "dest=a.tar,TYPE=docker", Export(type="docker", dest="a.tar")),
        (flags.output, "type=docker", Export(type="image")),
        (flags.output, "type=oci,tar=false,dest=d", Export(type="oci", dest="d", attrs={"tar": "false"})),
        (
            flags.output,
            "type=image,compression=zstd,compression-level=3",
            Export(type="image", attrs={"compression": "zstd", "compression-level": "3"}),
        ),
        (flags.output, "type=cacheonly", Export(type="cacheonly")),
        (flags.secret, "id=a,src=f", SecretSource(id="a", file=Path("f"))),
        (flags.secret, "id=a,source=f", SecretSource(id="a", file=Path("f"))),
        (flags.secret, "type=file,id=a,src=f", SecretSource(id="a", file=Path("f"))),
        (flags.secret, "id=a,env=B", SecretSource(id="a", env="B")),
        (flags.secret, "type=env,id=a,src=B", SecretSource(id="a", env="B")),
        (flags.secret, "id=a", SecretSource(id="a")),
        (flags.secret, '"id=a,b"', SecretSource(id="a,b")),
        (flags.cache_from, "r.example/a:1", CacheEntry(type="registry", attrs={"ref": "r.example/a:1"})),
        (flags.cache_from, "type=registry,ref=a", CacheEntry(type="registry", attrs={"ref": "a"})),
        (flags.cache_from, "type=gha", CacheEntry(type="gha")),
        (flags.cache_to, "inline", CacheEntry(type="inline")),
        (flags.cache_to, "type=inline,mode=min", CacheEntry(type="inline", attrs={"mode": "min"})),
        (flags.ssh, "default", SshSource(id="default")),
        (flags.ssh, "", SshSource(id="default")),
        (flags.ssh, "k=/a,/b", SshSource(id="k", paths=(Path("/a"), Path("/b")))),
        (flags.platforms, "linux/amd64", (AMD64,)),
        (flags.platforms, "linux/amd64, arm64", (AMD64, ARM64)),
        (flags.platforms, "local", (local(),)),
        (flags.ulimit, "nofile=1024", ("nofile", 1024, 1024)),
        (flags.ulimit, "nofile=1024:4096", ("nofile", 1024, 4096)),
        (flags.ulimit, "core=-1", ("core", -1, -1)),
        (flags.ulimit, "core=5:-1", ("core", 5, -1)),
        (flags.extra_hosts, "db:10.0.0.1", ("db=10.0.0.1",)),
        (flags.extra_hosts, "db=10.0.0.1", ("db=10.0.0.1",)),
        (flags.extra_hosts, "db:::1", ("db=::1",)),
        (flags.extra_hosts, "db:[2001:db8::1]", ("db=2001:db8::1",)),
        (flags.extra_hosts, "db=1.1.1.1,2.2.2.2", ("db=1.1.1.1", "db=2.2.2.2")),
        (flags.entitlement, "network.host", "network.host"),
        (flags.entitlement, "security.insecure", "security.insecure"),
        (flags.network, "none", "none"),
        (flags.memory, "64m", 64 << 20),
        (flags.tag, "app", "app"),
        (flags.tag, "app:1.0_X", "app:1.0_X"),
        (flags.tag, "Localhost:5000/a/b__c/d-e:x", "Localhost:5000/a/b__c/d-e:x"),
    ],
)  # fmt: skip
def test_what_a_value_means(parse: Callable[[str], Any], text: str, found: Any) -> None:
    assert parse(text) == found


@pytest.mark.parametrize(
    ("parse", "text", "message", "hint"),
    [
        (flags.assignment, "=b", "'=b' has no name before the =", None),
        (flags.output, "", "the output is empty", "type=oci"),
        (flags.output, "type=", "'type=' has no type", "image, oci"),
        (flags.output, "dest=x,name=y", "has no type", "image, oci"),
        (flags.output, "type=x,dest=x", "unknown output type 'x'", "image, oci, docker, tar, local, cacheonly"),
        (flags.output, "type=imag", "unknown output type 'imag'", "did you mean image?"),
        (flags.network, "hots", "unknown network mode 'hots'", "did you mean host?"),
        (flags.entitlement, "network.hots", "unknown entitlement 'network.hots'", "did you mean network.host?"),
        (flags.secret, "idd=x", "unknown key 'idd'", "did you mean id?"),
        (flags.output, "type=registry,dest=x", "the output registry has no dest", "it goes to a registry"),
        (flags.output, "type=oci,dest", "'dest' in 'type=oci,dest' is not key=value", "type=oci,dest=image.tar"),
        (flags.output, 'type=oci,"dest', "is not valid CSV", None),
        (flags.output, "type=local", "the output local needs a directory", "type=local,dest=out"),
        (flags.output, "type=local,dest=-", "the output local needs a directory", "type=local,dest=out"),
        (flags.output, "type=oci,tar=false", "the output oci needs a directory", "dest=out"),
        (flags.output, "type=image,dest=x", "the output image has no dest", "type=oci"),
        (flags.secret, "src=f", "'src=f' has no id", "id=key"),
        (flags.secret, "id=", "'id=' has no id", "id=key"),
        (flags.secret, "id=a,file=f", "unknown key 'file' in 'id=a,file=f'", "id=key"),
        (flags.secret, "mysecret", "'mysecret' in 'mysecret' is not key=value", "id=key"),
        (flags.secret, "id=a,type=vault", "unknown secret type 'vault'", "file and env"),
        (flags.cache_from, "r.example/A", "invalid image reference", "a reference looks like"),
        (flags.cache_from, "type=registry", "'type=registry' has no ref", "type=registry,ref="),
        (flags.cache_from, "ref=a", "'ref=a' has no type", "type=registry,ref="),
        (flags.cache_to, "mode=min", "'mode=min' has no type", "type=inline"),
        (flags.platforms, "linux/amd64,", "invalid platform ''", "os/architecture"),
        (flags.platforms, "linux/amd64/v1/x", "invalid platform", "os/architecture"),
        (flags.ulimit, "files=1", "unknown limit 'files'", "nofile"),
        (flags.ulimit, "nofile", "'nofile' is not NAME=SOFT[:HARD]", "nofile=1024:4096"),
        (flags.ulimit, "nofile=x", "'nofile=x' is not NAME=SOFT[:HARD]", "nofile=1024:4096"),
        (flags.ulimit, "nofile=1:2:3", "is not NAME=SOFT[:HARD]", "nofile=1024:4096"),
        (flags.ulimit, "nofile=5:4", "the soft limit of 'nofile=5:4' is above the hard limit", None),
        (flags.ulimit, "nofile=-1:4", "is above the hard limit", None),
        (flags.extra_hosts, "db", "'db' is not HOST:IP", "db.local:10.0.0.5"),
        (flags.extra_hosts, ":1.1.1.1", "is not HOST:IP", "db.local"),
        (flags.extra_hosts, "db:1.1.1", "'1.1.1' in 'db:1.1.1' is not an IP address", None),
        (flags.extra_hosts, "a,b=1.1.1.1", "is not HOST:IP", None),
        (flags.extra_hosts, "db:host-gateway", "host-gateway is not supported", "address"),
        (flags.entitlement, "root", "unknown entitlement 'root'", "network.host, security.insecure"),
        (flags.entitlement, "device=vendor/x", "devices are not supported", "network.host, security.insecure"),
        (flags.entitlement, "network.host=1", "unknown entitlement", "network.host"),
        (flags.network, "bridge", "unknown network mode 'bridge'", "default, none, host"),
        (flags.memory, "lots", "invalid size 'lots'", "64MB"),
        (flags.tag, "App", "must be lowercase", "a reference looks like"),
        (flags.tag, "app:" + "x" * 129, "invalid image reference", "a reference looks like"),
        (flags.tag, "app@sha256:" + "0" * 64, "has a digest", "what is in it"),
        (flags.tag, "", "invalid image reference ''", "a reference looks like"),
        (flags.tag, "-rm", "invalid image reference", "a reference looks like"),
    ],
)  # fmt: skip
def test_what_a_wrong_value_is_told(parse: Callable[[str], Any], text: str, message: str, hint: str | None) -> None:
    with pytest.raises(UserError) as caught:
        parse(text)
    assert message in caught.value.message
    assert (hint or "") in (caught.value.hint or "")


def test_tags_name_images_only() -> None:
    image, archive = Export(type="image"), Export(type="oci", dest="x", attrs={"compression": "zstd"})
    assert flags.named(image, ("a", "b:1")).attrs == {"name": "a,b:1"}
    assert flags.named(archive, ("a",)).attrs == {"compression": "zstd", "name": "a"}
    assert flags.named(image, ()) is image
    assert flags.named(Export(type="local", dest="x"), ("a",)).attrs == {}


# --- annotations and platforms


@pytest.mark.parametrize(
    ("text", "attributes", "value"),
    [
        ("a=1", ("annotation.a",), "1"),
        ("a.b/c=x=y", ("annotation.a.b/c",), "x=y"),
        ("index:a=", ("annotation-index.a",), ""),
        ("manifest:a=1:2", ("annotation-manifest.a",), "1:2"),
        (
            "index,manifest[linux/aarch64],manifest-descriptor:a=1",
            ("annotation-index.a", "annotation-manifest[linux/arm64].a", "annotation-manifest-descriptor.a"),
            "1",
        ),
    ],
)
def test_annotations(text: str, attributes: tuple[str, ...], value: str) -> None:
    assert flags.annotation(text) == (attributes, value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "'a' is not [TYPE:]KEY=VALUE"),
        ("=1", "'=1' has no key before the ="),
        ("index:=1", "'index:=1' has no key before the ="),
        ("indx:a=1", "unknown annotation type 'indx'"),
        ("manifest[:a=1", "unknown annotation type 'manifest['"),
        ("index[linux/amd64]:a=1", "index[linux/amd64]: an index is for all platforms"),
        ("manifest[a/b/c/d]:a=1", "invalid platform 'a/b/c/d'"),
    ],
)
def test_what_is_no_annotation(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        flags.annotation(text)
    assert (caught.value.message, bool(caught.value.hint)) == (message, True)


def test_annotations_are_for_images() -> None:
    given = (flags.annotation("a=1"), flags.annotation("index:b=2"))
    image = flags.annotated(Export(type="oci", attrs={"annotation.a": "0"}), given)
    assert image.attrs == {"annotation.a": "1", "annotation-index.b": "2"}
    files = Export(type="local", dest="x")
    assert flags.annotated(files, given) == files


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("linux/amd46", "did you mean linux/amd64?"),
        ("arm64/linux", "did you mean linux/arm64?"),
        ("linx/arm/v7", "did you mean linux/arm?"),
        ("linux/foo", "e.g. linux/amd64, linux/arm64 or linux/arm/v7"),
    ],
)
def test_platforms_that_there_are_not(text: str, hint: str) -> None:
    with pytest.raises(UserError, match=f"unknown platform {text}") as caught:
        flags.platforms(f"linux/amd64,{text}")
    assert caught.value.hint == hint
    assert flags.platforms("linux/arm64,windows(10.0.1)/amd64,darwin/arm64,local")
