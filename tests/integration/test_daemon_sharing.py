"""Two clients that share a step: what one has not, or takes away with him, is asked of the other."""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

from buildengine.digest import Digest
from tests.builds import FIXTURES, Store, write
from tests.fakes.build_gate import Gate
from tests.fakes.daemon import daemon
from tests.fakes.http_server import Reply, Request
from tests.fakes.registry_server import Image, fake_registry
from tests.fakes.remote_command import Remote, remote

pytest_plugins = [FIXTURES]
_T = TypeVar("_T")


@pytest.fixture(scope="module")
def shared(store_with_base: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Remote, Store]]:
    place = tmp_path_factory.mktemp("sharing")
    store = store_with_base.copy(place / "root")
    with daemon(store.root, place) as running:
        yield remote(running, store), store


def test_a_secret_that_only_the_second_client_has(shared: tuple[Remote, Store], tmp_path: Path) -> None:
    there, store = shared
    gate = Gate(store, "secrets")
    step = "RUN --mount=type=secret,id=word,required=true cp /run/secrets/word /made"
    files = {"Dockerfile": f"FROM base\n{gate.run}\n{step}\nFROM scratch\nCOPY --from=0 /made /\n", "word": "mine"}
    context = write(tmp_path / "context", files)
    with there.start("build", context, "-o", tmp_path / "first") as first:
        first.until_output(gate.said)
        with there.start("build", context, "--secret", f"id=word,src={context}/word", "-o", tmp_path / "out") as second:
            second.until_output(gate.said)
            gate.open()
            built = second.wait()
        first.wait()
    assert built.step("RUN --mount=type=secret").outcome == "done"
    assert (tmp_path / "out/made").read_text() == (tmp_path / "first/made").read_text() == "mine"
    assert gate.runs == 1


def test_what_no_client_has_fails_for_all(shared: tuple[Remote, Store], tmp_path: Path) -> None:
    there, store = shared
    gate = Gate(store, "nobody")
    files = {"Dockerfile": f"FROM base\n{gate.run}\nRUN --mount=type=ssh,required=true true\n"}
    context = write(tmp_path / "context", files)
    with there.start("build", context) as first:
        first.until_output(gate.said)
        with there.start("build", context) as second:
            second.until_output(gate.said)
            gate.open()
            assert 'no SSH key "default" forwarded from the client' in second.wait(status=1).error
        assert 'no SSH key "default" forwarded from the client' in first.wait(status=1).error


def test_a_step_that_runs_goes_on_without_its_first_client(shared: tuple[Remote, Store], tmp_path: Path) -> None:
    there, store = shared
    gate = Gate(store, "running")
    context = write(tmp_path / "context", {"Dockerfile": f"FROM base\n{gate.run}\n"})
    with there.start("build", context) as first:
        first.until_output(gate.said)
        with there.start("build", context) as second:
            second.until_output(gate.said)
            first.process.kill()
            first.process.wait()
            gate.open()
            assert second.wait().step("RUN").outcome == "done"
    assert gate.runs == 1


async def test_a_pull_goes_on_with_the_login_of_who_is_left(shared: tuple[Remote, Store], tmp_path: Path) -> None:
    there, _ = shared
    held = trio.Event()
    readers: list[str] = []

    def token(request: Request) -> Reply | None:
        """Each login has a token of its own."""
        if request.path != "/token":
            return None
        user = base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode().partition(":")[0]
        return Reply(body=json.dumps({"token": f"token-{user}", "expires_in": 300}).encode())

    async def never() -> Reply:
        held.set()
        await trio.sleep_forever()
        raise AssertionError

    image = _image({"file": b"from the image"})
    layer = f"/v2/app/blobs/{Digest.sha256(image.layers[0])}"

    def layers(request: Request) -> Any:
        """The first waits for ever: an answer that does not come."""
        user = request.headers.get("authorization", "").removeprefix("Bearer token-")
        if request.path != layer or not user:
            return None
        readers.append(user)
        if user == "first":
            return never()
        return None

    async with fake_registry(bearer="anybody", rules=[token, layers]) as registry:
        registry.put("app", "1", image)
        dockerfile = f"FROM {registry.host}/app:1 AS app\nFROM scratch\nCOPY --from=app /file /\n"
        context = write(tmp_path / "context", {"Dockerfile": dockerfile})

        def client(name: str) -> dict[str, str]:
            auths = {registry.host: {"auth": base64.b64encode(f"{name}:secret".encode()).decode()}}
            return {"DOCKER_CONFIG": str(write(tmp_path / name, {"config.json": json.dumps({"auths": auths})}))}

        with there.start("build", context, environment=client("first")) as first:
            await held.wait()
            out = tmp_path / "out"
            with there.start("build", context, "-o", out, environment=client("second")) as second:
                await _in_thread(lambda: second.until("FROM"))
                first.process.kill()
                await _in_thread(second.wait)
    assert (tmp_path / "out/file").read_bytes() == b"from the image"
    assert readers == ["first", "second"]


async def _in_thread(wait: Callable[[], _T]) -> _T:
    return await trio.to_thread.run_sync(wait)


def _image(files: dict[str, bytes]) -> Image:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    rootfs = {"type": "layers", "diff_ids": [str(Digest.sha256(packed.getvalue()))]}
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}
    return Image(layers=(gzip.compress(packed.getvalue(), mtime=0),), config=json.dumps(config).encode())
