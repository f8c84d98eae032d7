"""docker-buildx before pybuildd: bake, questions to a Dockerfile, builders, caches, history, images of registries."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bases import docker_registry
from tests.builds import FIXTURES, Store, write
from tests.conformance.buildx import Buildx
from tests.fakes.daemon import Daemon, daemon
from tests.fakes.image_tools import run, skopeo

pytest_plugins = [FIXTURES]

DOCKERFILE = """\
FROM base AS made
ARG WHO=world
RUN echo "hello $WHO" > /hello
FROM scratch AS last
COPY --from=made /hello /
"""
BAKE = """\
group "default" {
  targets = ["one", "two"]
}
target "one" {
  args = { WHO = "bake" }
  target = "made"
  output = ["type=cacheonly"]
}
target "two" {
  inherits = ["one"]
  target = "last"
  output = ["two"]
}
target "upon" {
  dockerfile-inline = "FROM two\\nCOPY a.txt /"
  contexts = { two = "target:two" }
  output = ["upon"]
}
"""
LINTED = """\
from base AS Made
ENV a b
CMD echo x
"""


@pytest.fixture(scope="module")
def running(store_with_base: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("buildx-commands")
    store = store_with_base.copy(place / "root")
    with daemon(store.root, place) as started:
        yield started


@pytest.fixture
def buildx(running: Daemon, tmp_path: Path) -> Buildx:
    return Buildx(tmp_path / "home", running.address)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write(tmp_path / "context", {"Dockerfile": DOCKERFILE, "a.txt": "public", "docker-bake.hcl": BAKE})


# --- builders -------------------------------------------------------------------------------------------------


def test_inspect_and_ls(buildx: Buildx) -> None:
    told = buildx("inspect", "--bootstrap")
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in told.splitlines())}
    assert found["Driver"] == "remote"
    assert found["Status"] == "running"
    assert "linux/amd64" in found["Platforms"]
    assert found["org.mobyproject.buildkit.worker.executor"] == "oci"
    assert "v0.26.3" in told
    assert "running" in buildx("ls")
    buildx("rm", "pybuildd")
    assert "pybuildd" not in buildx("ls", BUILDX_BUILDER="")


def test_two_nodes_make_one_image(buildx: Buildx, running: Daemon, context: Path, tmp_path: Path) -> None:
    """Each builds its platform and pushes it by digest; the client puts both into an index."""
    with docker_registry(tmp_path) as host, daemon(tmp_path / "root", tmp_path / "other") as other:
        for platform, node, how in (("linux/amd64", running, ()), ("linux/arm64", other, ("--append",))):
            remote = node.address.replace("unix:", "unix://")
            buildx("create", "--name=both", *how, "--driver=remote", f"--platform={platform}", remote)
        write(context, {"Dockerfile": "FROM scratch\nCOPY a.txt /\n"})
        flags = ("--builder=both", "--platform=linux/amd64,linux/arm64", "-t", f"{host}/app:1", "--push")
        buildx.build(context, *flags)
        index = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{host}/app:1"))
    assert {entry["platform"]["architecture"] for entry in index["manifests"]} == {"amd64", "arm64"}


def test_usage_and_prune(buildx: Buildx, context: Path) -> None:
    buildx.build(context)
    told = buildx("du", "--verbose")
    assert "[made 2/2] RUN echo" in told
    assert "Reclaimable:" in told
    assert "RUN echo" not in buildx("du", "--verbose", "--filter", "type=source.local")
    assert "RUN echo" not in buildx("prune", "--force", "--verbose", "--filter", "type=source.local")
    assert "Total:" in buildx("prune", "--force", "--filter", "until=24h")
    assert "RUN echo" in buildx("prune", "--force", "--all", "--verbose")
    assert "RUN echo" not in buildx("du", "--verbose")


def test_dial_stdio(buildx: Buildx) -> None:
    """The bytes of a connection, as they are: the daemon's begin with its settings."""
    settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # RFC 9113, 6.5: a frame of that type, without any
    with subprocess.Popen(
        buildx.argv("dial-stdio"), env=buildx.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
        client.stdin.flush()
        assert client.stdout.read(4)[3] == settings[3]
        client.stdin.close()
    assert client.returncode == 0


# --- bake -----------------------------------------------------------------------------------------------------


def test_bake_shares_what_targets_have_in_common(buildx: Buildx, context: Path) -> None:
    baked(buildx, context, "--no-cache")
    assert (context / "two/hello").read_text() == "hello bake\n"
    steps = buildx("du", "--verbose").count("[made 2/2] RUN echo")
    assert steps == 1  # of two targets


def test_bake_builds_upon_another_target(buildx: Buildx, context: Path) -> None:
    baked(buildx, context, "upon", "--metadata-file", context / "told.json")
    assert (context / "upon/hello").read_text() == "hello bake\n"
    assert (context / "upon/a.txt").read_text() == "public"
    assert {"two", "upon"} <= set(json.loads((context / "told.json").read_text()))


def baked(buildx: Buildx, context: Path, *words: object) -> None:
    run(*buildx.argv("bake", *words), environment=buildx.environment, cwd=context)


# --- questions to a Dockerfile --------------------------------------------------------------------------------


def test_call(buildx: Buildx, context: Path) -> None:
    buildx.since(0, 16)
    assert [line.split()[0] for line in buildx("build", "--call=targets", context).splitlines()[1:3]] == [
        "made",
        "last",
    ]
    outline = buildx("build", "--call=outline,format=json", "--target=made", context)
    document = json.loads(outline[: outline.rindex("}") + 1].partition("\n#")[0])
    assert [(each["name"], each["value"]) for each in document["args"]] == [("WHO", "world")]
    assert "Check complete, no warnings found." in buildx("build", "--check", context)


def test_findings(buildx: Buildx, context: Path) -> None:
    """A build shows them where the file is read; a check is made of nothing else, and fails."""
    buildx.since(0, 16)
    (context / "Dockerfile").write_text(LINTED)
    told = buildx.build(context)
    assert "#1 WARN: StageNameCasing: Stage name 'Made' should be lowercase (line 1)" in told
    checked = buildx("build", "--check", context, status=1)
    for rule in ("ConsistentInstructionCasing", "LegacyKeyValueFormat", "StageNameCasing", "JSONArgsRecommended"):
        assert rule in told
        assert rule in checked


# --- what was built -------------------------------------------------------------------------------------------


def test_history(buildx: Buildx, context: Path, tmp_path: Path) -> None:
    buildx.since(0, 23)
    buildx("history", "rm", "--all")
    buildx.build(context, "--target", "made", "--build-arg", "WHO=history")
    (record,) = [json.loads(line) for line in buildx("history", "ls", "--format=json").splitlines()]
    assert (record["name"], record["status"]) == (f"{context.name} (made)", "Completed")
    ref = record["ref"].rpartition("/")[2]
    inspected = json.loads(buildx("history", "inspect", "--format=json", ref))
    assert (inspected["Target"], inspected["Status"]) == ("made", "completed")
    assert {"Name": "WHO", "Value": "history"} in inspected["BuildArgs"]
    assert "[made 2/2] RUN echo" in buildx("history", "logs", ref)
    assert '"vertexes"' in buildx("history", "logs", "--progress=rawjson", ref)
    buildx("history", "export", "--output", tmp_path / "record.tar", ref)
    assert "index.json" in run("tar", "--list", "--file", tmp_path / "record.tar").decode().split()
    buildx("history", "rm", ref)
    assert ref not in buildx("history", "ls")


def test_history_of_a_failure(buildx: Buildx, context: Path) -> None:
    buildx.since(0, 23)
    buildx("history", "rm", "--all")
    buildx.build(context, "-f", "-", stdin=b"FROM base\nRUN echo oops && exit 3\n", status=1)
    told = buildx("history", "inspect")
    assert "exit code: 3" in told
    assert ">>> RUN echo oops && exit 3" in told
    assert len(buildx("history", "ls", "--filter", "status=error").splitlines()) == 2


# --- images of registries -------------------------------------------------------------------------------------


def test_imagetools(buildx: Buildx, context: Path, tmp_path: Path) -> None:
    with docker_registry(tmp_path) as host:
        image = f"{host}/app"
        for architecture in ("amd64", "arm64"):
            flags = ("--platform", f"linux/{architecture}", "-t", f"{image}:{architecture}", "--push")
            buildx.build(context, *flags, "-f", "-", stdin=b"FROM scratch\nCOPY a.txt /\n")
        buildx("imagetools", "create", "-t", f"{image}:both", f"{image}:amd64", f"{image}:arm64")
        raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{image}:both")
        platforms = [entry["platform"]["architecture"] for entry in json.loads(raw)["manifests"]]
        assert platforms == ["amd64", "arm64"]
        assert json.loads(buildx("imagetools", "inspect", "--raw", f"{image}:both")) == json.loads(raw)
