"""Pulls through a network that cuts, delays, reorders and refuses: never a wrong image, rarely a failed one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import trio

from buildengine import reference
from buildengine.errors import SourceError
from buildengine.platform import parse
from cache.store import ContentStore
from tests.fakes.commands import open_commands
from tests.fakes.faulty_proxy import FAULTS, SHORTENED, FaultyProxy, faulty_proxy
from tests.fakes.registry_server import Logins
from tests.integration.test_registry_docker import Built, DockerRegistry
from worker.oci.types import Descriptor
from worker.registry import download
from worker.registry.hosts import RegistryConfig
from worker.registry.puller import open_registry

SIZE = 1_500_000
PLATFORM = parse("linux/amd64")


@pytest.fixture(scope="module")
def built() -> Built:
    return Built(size=SIZE)


@pytest.fixture(scope="module")
def registry(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    directory = tmp_path_factory.mktemp("faults")
    running = DockerRegistry(directory / "registry")
    running.push(f"oci:{built.write(directory / 'oci', 'docker.io/library/app:1')}:1", "app:1")
    yield running
    running.stop()


async def pull(proxy: FaultyProxy, built: Built, directory: Path) -> bool:
    """Whether the image came. What came is compared byte for byte, and nothing half-written stays."""
    store = ContentStore(directory)
    config = RegistryConfig(retry_delays=(0.0,) * 5)

    async def fetch(descriptor: Descriptor) -> None:
        with store.writer(expected=descriptor.digest, size=descriptor.size) as writer:
            await client.fetch_blob(descriptor, (image.origin,), writer)
            writer.commit()

    async with open_registry(config, Logins()) as client:
        try:
            image = await client.resolve(reference.parse(f"{proxy.host}/app:1"), PLATFORM)
            assert (image.manifest.raw, image.config.raw) == (built.manifest, built.config)
            for descriptor, _ in image.layers:
                await fetch(descriptor)
        except SourceError as error:
            assert error.message
            return False
        finally:
            assert list((directory / "ingest").iterdir()) == []
    stored = [store.path(descriptor.digest).read_bytes() for descriptor, _ in image.layers]
    assert stored == built.layers
    return True


async def outcomes(
    registry: DockerRegistry, built: Built, directory: Path, seeds: range, kinds: Sequence[str] = FAULTS
) -> tuple[int, set[str]]:
    """How many of the pulls failed, and what they all met."""
    failed, met = 0, set()
    for seed in seeds:
        async with faulty_proxy(registry.host, seed=seed, kinds=kinds) as proxy:
            failed += not await pull(proxy, built, directory / str(seed))
        met |= {seen.fault.kind for seen in proxy.seen}
    return failed, met - {""}


@pytest.mark.parametrize("part", [1 << 30, 200_000], ids=["whole", "in parts"])
async def test_never_a_wrong_image_and_rarely_a_failed_one(
    registry: DockerRegistry, built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    monkeypatch.setattr(download, "PART", part)
    monkeypatch.setattr(download, "DIVIDED", 2 * part)
    failed, met = await outcomes(registry, built, tmp_path, range(40))
    assert failed <= 1
    assert met == set(FAULTS)


async def test_a_reply_that_was_shortened_is_never_taken_for_whole(
    registry: DockerRegistry, built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its length agrees with what is left of it: only size and digest tell. Asking once more helps."""
    monkeypatch.setattr(download, "PART", 200_000)
    monkeypatch.setattr(download, "DIVIDED", 400_000)
    failed, met = await outcomes(registry, built, tmp_path, range(12), [SHORTENED])
    assert met == {SHORTENED}
    assert failed <= 2


async def test_the_command_itself_is_patient(registry: DockerRegistry, tmp_path: Path) -> None:
    with open_commands() as commands:
        async with faulty_proxy(registry.host, seed=3, rate=0.5) as proxy:
            run = partial(commands.run, "--root", tmp_path / "root", "pull", f"{proxy.host}/app:1")
            ended = await trio.to_thread.run_sync(run)
    assert ended.status == 0, ended.text
    assert [seen for seen in proxy.seen if seen.fault.kind]
    assert "Downloaded newer image" in ended.text
