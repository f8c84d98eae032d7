"""Commands before a daemon and without one: the same words, the same status, and the same left behind."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.builds import FIXTURES, Built, Store, write
from tests.fakes.daemon import daemon
from tests.fakes.own_registry import OwnRegistry, own_registry
from tests.fakes.remote_command import Remote, remote
from tests.integration.test_registry_serve import HASH

pytest_plugins = [FIXTURES]

DOCKERFILE = 'FROM base\nARG SOURCE_DATE_EPOCH\nCOPY a.txt /srv/\nLABEL one=1\nCMD ["cat"]\n'
EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}
Run = Callable[..., Built]


@pytest.fixture(scope="module")
def twins(store_with_base: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Remote, Store]]:
    place = tmp_path_factory.mktemp("commands")
    theirs, ours = store_with_base.copy(place / "theirs"), store_with_base.copy(place / "ours")
    with daemon(theirs.root, place) as running:
        yield remote(running, theirs), ours


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnRegistry]:
    with own_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


def both(twins: tuple[Remote, Store], *words: str | Path, status: int = 0, **more: object) -> Built:
    """The command on either side; what it said, which is the same."""
    there, here = twins
    far = there.run(*words, status=status, **more)
    near = here.command(*words, status=status, **more)
    shown = [near.stdout, near.error], [far.stdout, far.error]
    assert [_plain(text) for text in shown[0]] == [_plain(text) for text in shown[1]]
    return far


def _plain(text: str) -> str:
    """Without what differs from one run to the next: ages, and which of several blobs was the first to fail."""
    return re.sub(r"\d+ (seconds|minutes|hours)( ago)?|blobs/sha256:[a-z0-9]+", "", text)


def test_images(twins: tuple[Remote, Store], tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": DOCKERFILE, "a.txt": "mine\n"})
    flags = ("--build-arg", "SOURCE_DATE_EPOCH", "-o", "type=image,name=app,rewrite-timestamp=true")
    both(twins, "build", "--progress", "quiet", context, *flags, environment=EPOCH)
    assert "app" in both(twins, "image", "ls", "--digests", "--no-trunc").stdout
    assert json.loads(both(twins, "image", "ls", "--format", "json").stdout.splitlines()[0])["Platforms"]
    document = json.loads(both(twins, "image", "inspect", "app").stdout)
    assert document[0]["Config"]["Labels"] == {"one": "1"}
    assert "COPY a.txt" in both(twins, "image", "history", "--no-trunc", "app").stdout
    both(twins, "image", "inspect", "--platform", "linux/s390x", "app", status=1)
    both(twins, "image", "tag", "app", "other:2")
    assert both(twins, "image", "rm", "other:2").stdout == "Untagged: other:2\n"
    assert "no such image: nothing" in both(twins, "image", "rm", "nothing", "app", status=1).error
    assert "no such image" in both(twins, "push", "gone", status=1).error
    both(twins, "image", "prune", "--force")
    both(twins, "image", "ls", "-q")


def test_archives_of_images(twins: tuple[Remote, Store], tmp_path: Path) -> None:
    there, here = twins
    for number, run in enumerate((there.run, here.command)):
        assert run("image", "save", "base", "-o", tmp_path / f"{number}.tar").stdout == ""
    assert (tmp_path / "0.tar").read_bytes() == (tmp_path / "1.tar").read_bytes()
    with tarfile.open(tmp_path / "0.tar") as archive:
        assert "manifest.json" in archive.getnames()
    both(twins, "image", "rm", "base")
    assert both(twins, "image", "load", "-i", tmp_path / "1.tar").stdout == "Loaded image: base:latest\n"
    both(twins, "image", "load", status=1, stdin=b"no archive")
    both(twins, "image", "load", status=1, stdin=b"no archive" * (1 << 20))
    both(twins, "image", "load", stdin=(tmp_path / "1.tar").read_bytes() + bytes(20 << 20))  # after its end
    both(twins, "image", "save", "nothing", "-o", tmp_path / "x.tar", status=1)
    assert sorted(os.listdir(tmp_path)) == ["0.tar", "1.tar"]


def test_pushes_and_pulls(twins: tuple[Remote, Store], registry: OwnRegistry) -> None:
    name = f"{registry.address}/moved:1"
    pushed = both(twins, "push", "-q", "base", name).stdout
    assert pushed.startswith(f"{name}@sha256:")
    assert "Image is up to date" not in both(twins, "pull", name).stdout
    assert "Image is up to date" in both(twins, "pull", name).stdout
    both(twins, "pull", f"{registry.address}/nothing", status=1)
    assert "#1 ERROR: " in both(twins, "push", "base", "127.0.0.1:1/x", status=1).error
    both(twins, "imagetools", "inspect", name)


def test_logins_are_this_users(twins: tuple[Remote, Store], tmp_path: Path) -> None:
    write(tmp_path, {"users": f"alice:{HASH}\n", "docker/config.json": "{}"})
    login = {"environment": {"DOCKER_CONFIG": str(tmp_path / "docker")}}
    with own_registry(tmp_path / "registry", "--htpasswd", tmp_path / "users") as guarded:
        name = f"{guarded.address}/app"
        assert "login" in both(twins, "push", "base", name, status=1, **login).error
        twins[0].run("login", "-u", "alice", "--password-stdin", guarded.address, stdin=b"secret", **login)
        both(twins, "push", "-q", "base", name, **login)
        both(twins, "pull", "-q", name, **login)
        twins[0].run("logout", guarded.address, **login)
        both(twins, "pull", "-q", name, status=1, **login)


def test_the_store_and_the_host(twins: tuple[Remote, Store]) -> None:
    there, here = twins
    assert both(twins, "debug", "platforms", "--json").stdout
    assert f"the store at {here.root} is sound" in here.command("debug", "verify-store").stdout
    theirs = there.run("debug", "verify-store").stdout
    assert theirs.startswith("the store at ")
    assert "is sound" in theirs
    assert str(here.root) not in theirs
    both(twins, "du", "--filter", "type=nothing")
    both(twins, "du", "--filter", "=x", status=1)
    assert there.run("du").stdout.split()[:5] == here.command("du").stdout.split()[:5]
    both(twins, "prune", "-f", "--filter", "type=nothing")
    both(twins, "version")
