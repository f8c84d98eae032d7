"""`pybuild --addr` before BuildKit's own daemon: another implementation of everything that our client speaks to."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.builds import PYBUILD, Built, write
from tests.conformance.peer import daemon
from tests.fakes.http_server import Request
from tests.fakes.registry_server import Image, fake_registry
from tests.fakes.remote_command import Remote

DOCKERFILE = """\
FROM scratch AS made
COPY tree /tree
FROM made
COPY --from=made /tree/a.txt /again
"""
ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    work = tmp_path_factory.mktemp("peer")
    with daemon(work):
        yield Remote(f"unix://{work}/buildkitd.sock", ENVIRONMENT)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    files = {"Dockerfile": DOCKERFILE, "tree/a.txt": "mine\n", "tree/ignored": "x", ".dockerignore": "**/ignored\n"}
    return write(tmp_path / "context", files)


def test_a_directory_there_and_back(there: Remote, context: Path, tmp_path: Path) -> None:
    built = there.run("build", context, "-o", tmp_path / "out")
    assert sorted(built.ran) == ["COPY --from=made /tree/a.txt /again", "COPY tree /tree"]
    assert (tmp_path / "out/again").read_text() == "mine\n"
    assert os.listdir(tmp_path / "out/tree") == ["a.txt"]
    assert sorted(there.run("build", context, "-o", tmp_path / "out").cached) == sorted(built.ran)


def test_many_files_and_a_large_one(there: Remote, tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {f"d{number % 7}/f{number}": f"{number}" for number in range(20_000)}
    dockerfile: dict[str, bytes | str] = {"Dockerfile": "FROM scratch\nCOPY . /\n", "large": os.urandom(9 << 20)}
    context = write(tmp_path / "context", {**files, **dockerfile})
    there.run("build", context, "-o", tmp_path / "out")
    assert subprocess.run(["diff", "-r", context, tmp_path / "out"], check=False).returncode == 0


@pytest.mark.parametrize("kind", ["tar", "oci", "docker"])
def test_archives(there: Remote, context: Path, tmp_path: Path, kind: str) -> None:
    metadata = tmp_path / "metadata"
    there.run("build", context, "-o", f"type={kind},dest={tmp_path}/image.tar", "--metadata-file", metadata)
    with tarfile.open(tmp_path / "image.tar") as opened:
        assert {"tar": "again", "oci": "index.json", "docker": "manifest.json"}[kind] in opened.getnames()
    assert kind == "tar" or "containerimage.digest" in json.loads(metadata.read_text())


def test_an_archive_on_standard_output(there: Remote, context: Path) -> None:
    argv = [str(PYBUILD), "--addr", there.address, "build", "--progress", "quiet", "-o", "-", str(context)]
    done = subprocess.run(argv, env=ENVIRONMENT, capture_output=True, check=True)
    assert b"again" in subprocess.run(["tar", "t"], input=done.stdout, capture_output=True, check=True).stdout


def test_a_dockerfile_on_standard_input(there: Remote, context: Path, tmp_path: Path) -> None:
    there.run("build", "-f", "-", context, "-o", tmp_path / "out", stdin=b"FROM scratch\nCOPY tree/a.txt /only\n")
    assert os.listdir(tmp_path / "out") == ["only"]


def test_a_context_on_standard_input(there: Remote, context: Path, tmp_path: Path) -> None:
    archive = subprocess.run(["tar", "cz", "-C", context, "."], capture_output=True, check=True).stdout
    there.run("build", "-", "-o", tmp_path / "out", stdin=archive)
    assert (tmp_path / "out/again").read_text() == "mine\n"


def test_a_layout_in_a_directory(there: Remote, context: Path, tmp_path: Path) -> None:
    for name in ("app:1", "app:2"):
        there.run("build", context, "-t", name, "-o", f"type=oci,tar=false,dest={tmp_path}/layout")
    assert sorted(os.listdir(tmp_path / "layout")) == ["blobs", "index.json", "oci-layout"]
    entries = json.loads((tmp_path / "layout/index.json").read_text())["manifests"]
    assert [entry["annotations"]["io.containerd.image.name"].rpartition("/")[2] for entry in entries] == [
        "app:1",
        "app:2",
    ]
    assert all((tmp_path / "layout/blobs" / entry["digest"].replace(":", "/")).is_file() for entry in entries)


def test_several_layouts_are_more_than_buildkit_can_send(there: Remote, context: Path, tmp_path: Path) -> None:
    outputs = ("-o", f"type=oci,tar=false,dest={tmp_path}/a", "-o", f"type=docker,tar=false,dest={tmp_path}/b")
    assert "this daemon sends one OCI layout a build" in there.run("build", context, *outputs, status=1).error
    assert not list(tmp_path.glob("[ab]/index.json"))


def test_history(there: Remote, context: Path, tmp_path: Path) -> None:
    there.run("history", "rm", "--all")
    there.run("build", context, "--label", "one=1")
    there.run("build", write(tmp_path / "bad", {"Dockerfile": "FROM scratch\nCOPY nothing /\n"}), status=1)
    listed = [json.loads(line) for line in there.run("history", "ls", "--format", "json").stdout.splitlines()]
    assert [record["status"] for record in listed] == ["Error", "Completed"]
    assert there.run("history", "ls", "--filter", "status=error").stdout.count("\n") == 2
    assert "\nLABEL\tVALUE\none\t1\n" in there.run("history", "inspect", "^1").stdout
    failed = there.run("history", "inspect").stdout
    assert "Dockerfile:2\n" in failed
    assert ">>> COPY nothing /" in failed
    told = there.run("history", "logs", "^1", "--progress", "rawjson")
    assert told.step("COPY tree /tree").outcome in ("done", "cached")
    there.run("history", "rm", "^0")
    assert len(there.run("history", "ls").stdout.splitlines()) == 2


@pytest.mark.parametrize("words", [("image", "ls"), ("push", "app"), ("pull", "app"), ("image", "save", "app")])
def test_what_only_pybuildd_has(there: Remote, words: tuple[str, ...]) -> None:
    said = there.run(*words, status=1).error
    assert said.startswith(f"error: the daemon at {there.address} has no service pybuild.v1.Images\nhint: ")


@pytest.mark.parametrize(
    ("dockerfile", "said"),
    [
        ("FROM scratch\nCOPY nothing /\n", '"/nothing": not found'),
        ("FROM scratch\nCOPPY a /\n", "unknown instruction: COPPY"),
        ("FROM scratch\nRUN true\n", "process"),
    ],
)
def test_failures_have_their_place(there: Remote, tmp_path: Path, dockerfile: str, said: str) -> None:
    context = write(tmp_path / "context", {"Dockerfile": dockerfile})
    told = there.run("build", context, status=1).error
    assert told.startswith("error: ")
    assert said in told
    assert ">>> " + dockerfile.splitlines()[1] in told


def test_usage_and_pruning(there: Remote, context: Path) -> None:
    built = there.run("build", context)
    assert "RECLAIMABLE" in there.run("du").stdout
    assert there.run("prune", "-f", "--all").stdout.startswith("ID ")
    assert there.run("build", context).ran == (built.ran or built.cached)


async def test_a_token_is_shared_by_those_who_have_the_same_login(there: Remote, tmp_path: Path) -> None:
    """buildkitd asks each for its authority, and for a token only where nobody with that authority has fetched one."""
    askers: list[str] = []

    def watch(request: Request) -> None:
        if request.path == "/token":
            askers.append(request.headers["user-agent"])

    async with fake_registry(bearer="user:secret") as fake:
        fake.rules.append(watch)
        fake.put("app", "1", Image(layers=()))
        context = write(tmp_path / "context", {"a": "a", "Dockerfile": f"FROM {fake.host}/app:1\nCOPY a /\n"})
        homes = {"mine": b"user:secret", "also mine": b"user:secret", "nobody": b"", "wrong": b"user:wrong"}
        for name, login in homes.items():
            auths = {fake.host: {"auth": base64.b64encode(login).decode()}} if login else {}
            write(tmp_path / name, {"config.json": json.dumps({"auths": auths})})

        async def build(name: str, status: int = 0) -> Built:
            command = partial(
                there.run, "build", context, "--no-cache", "--pull", "-o", tmp_path / "out", status=status
            )
            return await trio.to_thread.run_sync(partial(command, environment={"DOCKER_CONFIG": str(tmp_path / name)}))

        await build("mine")
        assert [agent for agent in askers if "pybuild" not in agent] == []
        before = len(askers)
        assert before > 0
        shutil.copy(tmp_path / "mine/.token_seed", tmp_path / "also mine")
        await build("also mine")
        assert len(askers) == before
        assert "bad credentials" in (await build("wrong", status=1)).error
        await build("nobody", status=1)
        assert len(askers) > before
