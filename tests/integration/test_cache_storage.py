"""What the store keeps and gives back: pruning and building again, disk usage, images that stay, bases to pull."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import tarfile
from pathlib import Path

import pytest
import trio

from buildengine.digest import Digest
from tests.builds import FIXTURES, Store, write
from tests.fakes.build_gate import Gate
from tests.fakes.registry_server import FakeRegistry, fake_registry

pytest_plugins = [FIXTURES]

DOCKERFILE = """\
FROM base AS build
COPY src /src
RUN --mount=type=cache,target=/c cat /src/file > /out; touch /c/used
FROM base
COPY --from=build /out /out
RUN cat /out
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write(tmp_path / "context", {"Dockerfile": DOCKERFILE, "src/file": "x"})


def usage(store: Store, *filters: str) -> list[dict[str, object]]:
    flags = [word for text in filters for word in ("--filter", text)]
    return [json.loads(line) for line in store.command("du", "--format", "json", *flags).stdout.splitlines()]


def digest_of(store: Store, name: str) -> str:
    return str(json.loads(store.command("image", "inspect", name).stdout)[0]["Id"])


# --- prune --------------------------------------------------------------------------------------------------------


async def test_after_prune_everything_runs_again_and_comes_out_the_same(
    store: Store, context: Path, tmp_path: Path
) -> None:
    reproducible = ("--build-arg", "SOURCE_DATE_EPOCH=1")
    first = await store.build(
        context, "-o", f"type=oci,rewrite-timestamp=true,dest={tmp_path / 'first'}", *reproducible
    )
    store.command("prune", "--all", "--force")
    again = await store.build(
        context, "-o", f"type=oci,rewrite-timestamp=true,dest={tmp_path / 'again'}", *reproducible
    )
    assert again.ran == first.ran
    assert manifest(tmp_path / "first") == manifest(tmp_path / "again")
    assert (await store.build(context)).ran == []
    store.command("debug", "verify-store")


def manifest(archive: Path) -> str:
    with tarfile.open(archive) as tar:
        index = tar.extractfile("index.json")
        assert index is not None
        return str(json.load(index)["manifests"][0]["digest"])


async def test_pruning_a_part_runs_no_more_than_that_part_again(store: Store, context: Path) -> None:
    """The last step's own result is the cheapest to lose: what it was made from is still there."""
    await store.build(context)
    (last,) = usage(store, 'description~="RUN cat /out$"')
    store.command("prune", "--force", "--filter", f"id={last['ID']}")
    assert (await store.build(context)).ran == ["RUN cat /out"]


async def test_prune_leaves_what_a_running_build_has_or_has_made(store: Store, tmp_path: Path) -> None:
    gate = Gate(store)
    dockerfile = f"FROM base\nCOPY file /file\nRUN cp /file /copy\n{gate.run}\nRUN cat /copy\n"
    context = write(tmp_path / "context", {"Dockerfile": dockerfile, "file": "x"})
    with store.start("build", context, "-t", "app") as running:
        running.until_output(gate.said)
        store.command("prune", "--all", "--force")
        gate.open()
        built = running.wait()
    assert built.step("RUN cat /copy").output == "x"
    assert (await store.build(context)).ran == []
    store.command("debug", "verify-store")


async def test_prune_and_builds_at_once_leave_a_store_that_verifies(
    store: Store, context: Path, tmp_path: Path
) -> None:
    for turn in range(3):
        with (
            store.start("prune", "--all", "--force") as pruning,
            store.start("build", context, "-t", "app") as building,
            store.start("build", context, "--build-arg", f"SOURCE_DATE_EPOCH={turn}", "-t", "other") as another,
        ):
            for command in (building, another, pruning):
                command.wait()
    store.command("debug", "verify-store")
    store.command("image", "save", "app", "-o", tmp_path / "app.tar")


# --- disk usage ---------------------------------------------------------------------------------------------------


async def test_disk_usage_lists_what_was_made(store: Store, context: Path) -> None:
    await store.build(context)
    before = {str(one["ID"]) for one in usage(store)}
    assert len(before) == len(usage(store)) >= 6
    (mount,) = usage(store, "type==exec.cachemount")
    assert mount["Mutable"] is True
    store.command("prune", "--all", "--force")
    assert usage(store) == []


async def test_what_a_running_build_uses_is_shown_in_use(store: Store, tmp_path: Path) -> None:
    gate = Gate(store)
    context = write(tmp_path / "context", {"Dockerfile": f"FROM base\n{gate.run}\n"})
    with store.start("build", context) as running:
        running.until_output(gate.said)
        assert len(usage(store, "inuse")) >= 3  # the base, the layer of the step, its cache mount
        gate.open()
        running.wait()
    assert usage(store, "inuse") == []


# --- images -------------------------------------------------------------------------------------------------------


async def test_an_image_keeps_what_it_needs_when_the_cache_is_pruned(
    store: Store, context: Path, tmp_path: Path
) -> None:
    await store.build(context, "-t", "app")
    store.command("prune", "--all", "--force")
    store.command("debug", "verify-store")
    child = write(tmp_path / "child", {"Dockerfile": "FROM app\nRUN cat /out\n"})
    assert (await store.build(child)).step("RUN cat /out").output == "x"
    store.command("image", "save", "app", "-o", tmp_path / "app.tar")
    other = Store(tmp_path / "other", tmp_path)
    other.command("image", "load", "-i", tmp_path / "app.tar")
    assert digest_of(other, "app") == digest_of(store, "app")
    assert (await other.build(child)).step("RUN cat /out").output == "x"


async def test_removed_images_and_a_pruned_cache_leave_nothing(store: Store, context: Path) -> None:
    await store.build(context, "-t", "app")
    store.command("image", "rm", "app", "base")
    store.command("prune", "--all", "--force")
    assert list(store.root.glob("blobs/sha256/*")) == []
    assert list(store.root.glob("layers/*")) == []
    assert list(store.root.glob("cachemounts/*")) == []
    assert usage(store) == []


# --- bases from a registry ----------------------------------------------------------------------------------------


def push(registry: FakeRegistry, name: str, archive: Path) -> Digest:
    """Put the image of an OCI archive into the registry."""
    with tarfile.open(archive) as tar:
        files = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        data = {path: file.read() for path, file in files.items() if file is not None}
    for path, blob in data.items():
        if path.startswith("blobs/"):
            registry.blobs["sha256:" + path.rpartition("/")[2]] = blob
    (described,) = json.loads(data["index.json"])["manifests"]
    return registry.put_manifest(name, "latest", registry.blobs[described["digest"]], described["mediaType"])


async def test_a_cached_build_on_a_pinned_base_needs_no_registry(store: Store, tmp_path: Path) -> None:
    archive = tmp_path / "base.tar"
    await store.build(write(tmp_path / "base", {"Dockerfile": "FROM base\n"}), "-o", f"type=oci,dest={archive}")
    fresh = Store(tmp_path / "fresh", tmp_path)
    async with fake_registry() as registry:
        digest = push(registry, "mine", archive)
        dockerfile = f"FROM {registry.host}/mine@{digest}\nCOPY file /file\nRUN cat /file\n"
        context = write(tmp_path / "context", {"Dockerfile": dockerfile, "file": "x"})
        first = await fresh.build(context)
        asked = len(registry.server.requests)
        assert (await fresh.build(context)).cached == first.ran
        assert len(registry.server.requests) == asked, "nothing is asked where everything is known"
    assert (await fresh.build(context)).cached == first.ran
    write(context, {"file": "y"})
    assert (await fresh.build(context)).ran == first.ran, "the base is here"


async def test_metadata_alone_pulls_no_layer(store: Store, tmp_path: Path) -> None:
    """Not even an export does: what is untouched is sent as it was."""
    archive = tmp_path / "base.tar"
    await store.build(write(tmp_path / "base", {"Dockerfile": "FROM base\n"}), "-o", f"type=oci,dest={archive}")
    fresh = Store(tmp_path / "fresh", tmp_path)
    async with fake_registry() as registry:
        digest = push(registry, "mine", archive)
        context = write(tmp_path / "context", {"Dockerfile": f"FROM {registry.host}/mine@{digest}\nLABEL a=b\n"})
        await fresh.build(context)
        assert len([r for r in registry.server.requests if "/blobs/" in r.path]) == 1, "the config alone"
        await fresh.build(context, "-t", "app")
        assert len([r for r in registry.server.requests if "/blobs/" in r.path]) == 2, "and the blob of its layer"
    assert [layer.name for layer in fresh.root.glob("layers/*/fs")] == []


async def test_a_moved_tag_is_another_base(store: Store, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": ""})
    archives = []
    for number in (1, 2):
        write(context, {"Dockerfile": f"FROM base\nRUN echo {number} > /number\n"})
        archives.append(tmp_path / f"{number}.tar")
        await store.build(context, "-o", f"type=oci,dest={archives[-1]}")
    fresh = Store(tmp_path / "fresh", tmp_path)
    async with fake_registry() as registry:
        push(registry, "mine", archives[0])
        write(context, {"Dockerfile": f"FROM {registry.host}/mine\nRUN cat /number\n"})
        assert (await fresh.build(context)).step("RUN").output == "1\n"
        push(registry, "mine", archives[1])
        assert (await fresh.build(context)).step("RUN").output == "2\n"
        push(registry, "mine", archives[0])
        assert (await fresh.build(context)).ran == []


async def test_two_builds_pull_a_layer_once(store: Store, tmp_path: Path) -> None:
    archive = tmp_path / "base.tar"
    await store.build(write(tmp_path / "base", {"Dockerfile": "FROM base\n"}), "-o", f"type=oci,dest={archive}")
    fresh = Store(tmp_path / "fresh", tmp_path)
    async with fake_registry() as registry:
        digest = push(registry, "mine", archive)
        contexts = [
            write(tmp_path / name, {"Dockerfile": f"FROM {registry.host}/mine@{digest}\nRUN echo {name}\n"})
            for name in ("one", "two")
        ]
        async with fresh.engine() as engine, trio.open_nursery() as nursery:
            for context in contexts:
                engine.start(nursery, context)
        (layer,) = json.loads(registry.manifests["mine", "latest"][0])["layers"]
        assert len(registry.server.seen("GET", f"/v2/mine/blobs/{layer['digest']}")) == 1


# --- everything at once -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_commands_at_once_make_what_each_was_asked_for(store: Store, tmp_path: Path) -> None:
    """Builds that share some steps, change files between turns, export, prune and ask for usage, on one directory."""
    dockerfile = """\
        FROM base AS one
        COPY common /common
        RUN --mount=type=cache,target=/c cat /common > /one; echo x >> /c/runs
        FROM base
        COPY --from=one /one /one
        COPY own /own
        RUN --mount=type=bind,target=/src cat /one /own /src/own > /result
        """
    contexts = [write(tmp_path / f"context{n}", {"Dockerfile": dockerfile}) for n in range(3)]
    for turn in range(6):
        with contextlib.ExitStack() as stack:
            commands = [("prune", "--force", "--all")[: 2 + turn % 2], ("du",)]
            for number, context in enumerate(contexts):
                write(context, {"common": f"c{turn // 2} ", "own": f"o{number}{turn // 3} "})
                commands.append(("build", str(context), "-o", str(tmp_path / f"out{turn}-{number}")))
                commands.append(("build", str(context), "-t", f"app{number}"))
            running = [stack.enter_context(store.start(*command)) for command in commands]
            for command in running:
                command.wait()
        for number in range(3):
            made = (tmp_path / f"out{turn}-{number}/result").read_text()
            assert made == f"c{turn // 2} o{number}{turn // 3} o{number}{turn // 3} "
        store.command("debug", "verify-store")


async def test_what_a_failed_build_did_well_survives_a_power_cut(store: Store, tmp_path: Path) -> None:
    failing = write(tmp_path / "failing", {"Dockerfile": "FROM base\nRUN echo good\nRUN exit 3\n"})
    store.command("build", failing, status=1)
    with sqlite3.connect(store.root / "meta.db") as database:
        assert database.execute("SELECT kind, id FROM unsynced").fetchall() == []
    database.close()
