"""With SOURCE_DATE_EPOCH and rewrite-timestamp=true, whoever builds where and when gets the same digests."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.builds import FIXTURES, Store, write

pytest_plugins = [FIXTURES]

EPOCH = 1_700_000_000
_EXACTLY = "type=oci,rewrite-timestamp=true,dest="
_DOCKERFILE = """\
FROM --platform=$BUILDPLATFORM base AS work
RUN mkdir -p /out/d && for n in c a b; do echo $n > /out/d/$n; done && ln /out/d/a /out/hard && ln -s d/a /out/soft
RUN hostname > /out/host && echo $$ > /dev/null && chmod 4750 /out/d/b && chown 12:34 /out/d/c && mkfifo /out/fifo
COPY files /out/files
RUN rm /out/files/gone && rm -r /out/d && mkdir /out/d && echo new > /out/d/new && touch /out/files/kept

FROM base AS native
COPY files /first
RUN rm /first/gone && mkdir -m 700 /second
WORKDIR /srv
COPY --from=work /out /srv/out
COPY --link --chmod=750 files /linked
RUN rm -r /srv/out/d && touch /srv/new && chmod 700 /srv/out
LABEL title=native

FROM scratch
ARG TARGETARCH
WORKDIR /srv
COPY --from=work /out /srv/
COPY files/$TARGETARCH /arch
ENV ARCH=$TARGETARCH
"""


def context_in(directory: Path, *, last_first: bool = False, day: int = 0) -> Path:
    """The files, made in this order, with times of that many days ahead."""
    files = {
        "Dockerfile": _DOCKERFILE,
        "files/gone": "gone",
        "files/kept": "kept",
        "files/amd64": "a",
        "files/arm64": "b",
        "files/deep/er/file": "x" * 5000,
    }
    ordered = sorted(files.items(), reverse=last_first)
    write(directory, dict(ordered))
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (time.time() + day * 86400,) * 2)
    return directory


@pytest.fixture(scope="module")
def base_archive(store_with_base: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image `base` as a file, for stores that did not build it."""
    work = tmp_path_factory.mktemp("archive")
    own = store_with_base.copy(work / "root")
    own.command("image", "save", "base", "-o", work / "base.tar")
    return work / "base.tar"


@pytest.fixture
def loaded_store(base_archive: Path, tmp_path: Path) -> Store:
    """Another state directory, into which `base` was loaded."""
    (tmp_path / "home").mkdir()
    store = Store(tmp_path / "other", tmp_path / "home")
    store.command("image", "load", "-i", base_archive)
    return store


def digests(store: Store, context: Path, out: Path, *flags: str, **more: Any) -> tuple[str, list[str]]:
    """The digest of what is built with these flags, and those of everything in it."""
    environment = {"SOURCE_DATE_EPOCH": str(EPOCH), **more.pop("environment", {})}
    store.command("build", context, *flags, "-o", f"{_EXACTLY}{out},tar=false", environment=environment, **more)
    (entry,) = json.loads((out / "index.json").read_bytes())["manifests"]
    return entry["digest"], sorted(path.name for path in (out / "blobs/sha256").iterdir())


BOTH = ("--platform", "linux/amd64,linux/arm64")
NATIVE = ("--target", "native", "--platform", "linux/amd64")


@pytest.fixture
def expected(store: Store, tmp_path: Path) -> dict[tuple[str, ...], tuple[str, list[str]]]:
    """What a store says that built `base` itself."""
    context = context_in(tmp_path / "context")
    return {flags: digests(store, context, tmp_path / f"out{number}", *flags) for number, flags in enumerate(WAYS)}


WAYS = (BOTH, NATIVE)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"PYBUILD_WORKER_SNAPSHOTTER": "copy"},
        {"PYBUILD_WORKER_RUNTIME": "runc"},
        {"PYBUILD_WORKER_RUNTIME": "crun", "PYBUILD_WORKER_SNAPSHOTTER": "copy"},
        {"PYBUILD_WORKER_MAX_PARALLELISM": "1", "TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "7"},
    ],
    ids=["elsewhere", "copy", "runc", "crun-copy", "one-by-one"],
)
def test_another_machine_another_day(
    environment: dict[str, str],
    expected: dict[tuple[str, ...], tuple[str, list[str]]],
    loaded_store: Store,
    tmp_path: Path,
) -> None:
    loaded_store.environment |= environment
    context = context_in(tmp_path / "elsewhere", last_first=True, day=1)
    for number, flags in enumerate(WAYS):
        found = digests(loaded_store, context, tmp_path / f"again{number}", *flags, umask=0o077)
        assert found == expected[flags]


def test_what_was_built_before_does_not_matter(
    expected: dict[tuple[str, ...], tuple[str, list[str]]], loaded_store: Store, tmp_path: Path
) -> None:
    """Neither blobs that were made otherwise, nor names for the same layers, nor their use as a base."""
    context = context_in(tmp_path / "used", day=2)
    write(tmp_path / "child", {"Dockerfile": "FROM app\nRUN true\n"})
    loaded_store.command("build", context, *NATIVE, "-t", "app")
    loaded_store.command("build", tmp_path / "child", "-t", "child")
    loaded_store.command("build", context, *NATIVE, "-o", "type=image,name=app:zstd,compression=zstd")
    write(tmp_path / "child2", {"Dockerfile": "FROM app:zstd\nRUN true\n"})
    loaded_store.command("build", tmp_path / "child2", "-t", "child2")
    for number, flags in enumerate(WAYS):
        assert digests(loaded_store, context, tmp_path / f"again{number}", *flags) == expected[flags]


def test_another_epoch_is_another_image(store: Store, tmp_path: Path) -> None:
    context = context_in(tmp_path / "context")
    one = digests(store, context, tmp_path / "one", *NATIVE)
    two = digests(store, context, tmp_path / "two", *NATIVE, environment={"SOURCE_DATE_EPOCH": str(EPOCH + 1)})
    assert one[0] != two[0]


def test_the_base_keeps_its_layers_and_its_times(store: Store, base_archive: Path, tmp_path: Path) -> None:
    """They are older than nothing: the base was made after the epoch."""
    base = json.loads(store.command("image", "inspect", "base").stdout)[0]
    digests(store, context_in(tmp_path / "context"), tmp_path / "out", *NATIVE)
    blobs = tmp_path / "out/blobs/sha256"
    (entry,) = json.loads((tmp_path / "out/index.json").read_bytes())["manifests"]
    manifest = json.loads((blobs / entry["digest"][7:]).read_bytes())
    config = json.loads((blobs / manifest["config"]["digest"][7:]).read_bytes())
    own = base["Layers"]
    assert [layer["digest"] for layer in manifest["layers"]][: len(own)] == [layer["Digest"] for layer in own]
    assert all("annotations" not in layer for layer in manifest["layers"][: len(own)])
    rewritten = [layer["annotations"] for layer in manifest["layers"][len(own) :]]
    assert rewritten
    assert rewritten == [{"buildkit/rewritten-timestamp": str(EPOCH)}] * len(rewritten)
    times = [entry["created"] for entry in config["history"]]
    inherited = len(store.command("image", "history", "-q", "base").stdout.splitlines())
    assert "2023-11-14T22:13:20Z" not in times[:inherited]
    assert set(times[inherited:]) == {"2023-11-14T22:13:20Z"}
    assert config["created"] == "2023-11-14T22:13:20Z"


def test_a_base_packed_otherwise_stays_what_it_was(empty_store: Store, tmp_path: Path) -> None:
    """Also where the same layer was built here with its times rewritten: that is another layer."""
    how = "rewrite-timestamp=true,compression=zstd,force-compression=true"
    environment = {"SOURCE_DATE_EPOCH": str(EPOCH)}
    below = write(tmp_path / "below", {"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "1"})
    empty_store.command("build", below, "-t", "below", environment=environment)
    rewritten = ("-o", f"type=image,name=rewritten,{how}")
    empty_store.command("build", below, *rewritten, environment=environment)
    above = write(tmp_path / "above", {"Dockerfile": "FROM below\nCOPY b /\n", "b": "2"})
    empty_store.command("build", above, "-o", f"type=image,name=above,{how}", environment=environment)
    layers = {
        name: json.loads(empty_store.command("image", "inspect", name).stdout)[0]["Layers"]
        for name in ("below", "rewritten", "above")
    }
    assert layers["above"][0]["DiffID"] == layers["below"][0]["DiffID"] != layers["rewritten"][0]["DiffID"]
    assert all(layer["MediaType"].endswith("zstd") for layer in layers["above"])
    assert layers["below"][0]["MediaType"].endswith("gzip")
