"""`pybuild build`: every flag in the request, every input, every result, through the program itself."""

from __future__ import annotations

import io
import json
import os
import socket
import tarfile
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from buildengine.builder import BuildOutcome, BuildRequest, CacheEntry, Export, SecretSource, SshSource
from buildengine.digest import Digest
from buildengine.errors import HostError
from buildengine.events import Outcome, VertexEvent, WarningEvent
from buildengine.platform import Platform
from tests.fakes.builder import FakeBuilder, Ran, run_cli

CONFIG, MANIFEST = Digest.sha256(b"config"), Digest.sha256(b"manifest")
DOCKERFILE = b"FROM scratch\nCOPY . /\n"


@pytest.fixture(autouse=True)
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("SOURCE_DATE_EPOCH", "DOCKER_DEFAULT_PLATFORM", "BUILDKIT_PROGRESS", "SSH_AUTH_SOCK", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_bytes(DOCKERFILE)
    monkeypatch.chdir(directory)
    return directory


def build(*args: str, stdin: bytes = b"", builder: FakeBuilder | None = None) -> BuildRequest:
    builder = builder or FakeBuilder()
    ran = run_cli(builder, "build", *args, stdin=stdin)
    assert (ran.status, ran.stderr) == (0, "")
    return builder.requests[0]


def refused(*args: str, stdin: bytes = b"") -> Ran:
    builder = FakeBuilder()
    ran = run_cli(builder, "build", *args, stdin=stdin)
    assert ran.status != 0
    assert not builder.configs  # nothing was opened for it
    return ran


def option(name: str, value: str) -> dict[str, Any]:
    return {"options": {"filename": "Dockerfile", name: value}}


def listening(path: Path) -> Path:
    """The socket of an agent that says nothing."""
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(path))
    return path


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], {"options": {"filename": "Dockerfile"}, "exports": (Export(type="image"),), "platforms": ()}),
        (["-t", "app"], {"exports": (Export(type="image", attrs={"name": "app"}),)}),
        (["-t", "a", "--tag", "b:1"], {"exports": (Export(type="image", attrs={"name": "a,b:1"}),)}),
        (["--target", "final"], option("target", "final")),
        (["--build-arg", "A=b,c=d"], option("build-arg:A", "b,c=d")),
        (["--build-arg", "A=1", "--build-arg", "A=2"], option("build-arg:A", "2")),
        (["--build-arg", "FROM_ENV"], option("build-arg:FROM_ENV", "value")),
        (["--build-arg", "NOT_SET"], {"options": {"filename": "Dockerfile"}}),
        (["--label", "a=b"], option("label:a", "b")),
        (["--label", "a"], option("label:a", "")),
        (["--no-cache"], option("no-cache", "")),
        (["--no-cache=true"], option("no-cache", "")),
        (["--no-cache=false"], {"options": {"filename": "Dockerfile"}}),
        (["--no-cache-filter", "a", "--no-cache-filter", "b,c"], option("no-cache", "a,b,c")),
        (["--pull"], option("image-resolve-mode", "pull")),
        (["--network", "none"], {**option("force-network-mode", "none"), "entitlements": frozenset()}),
        (["--network=host"], {**option("force-network-mode", "host"), "entitlements": frozenset({"network.host"})}),
        (["--network", "default"], {"options": {"filename": "Dockerfile"}, "entitlements": frozenset()}),
        (["--allow", "security.insecure", "--allow", "network.host"],
         {"entitlements": frozenset({"security.insecure", "network.host"})}),
        (["--ulimit", "nofile=5:6", "--ulimit", "core=0", "--ulimit", "nofile=7"],
         option("ulimit", "core=0:0,nofile=7:7")),
        (["--shm-size", "64m"], option("shm-size", str(64 << 20))),
        (["--add-host", "a:1.1.1.1", "--add-host", "b=2.2.2.2,3.3.3.3"],
         option("add-hosts", "a=1.1.1.1,b=2.2.2.2,b=3.3.3.3")),
        (["--cgroup-parent", "builds"], option("cgroup-parent", "builds")),
        (["--platform", "linux/arm64"], {"platforms": (Platform(os="linux", architecture="arm64"),)}),
        (["--platform", "linux/amd64,arm64", "--platform", "linux/amd64"],
         {"platforms": (Platform(os="linux", architecture="amd64"), Platform(os="linux", architecture="arm64"))}),
        (["--cache-from", "a"], {"cache_imports": (CacheEntry(type="registry", attrs={"ref": "a"}),)}),
        (["--cache-to", "type=inline"], {"cache_exports": (CacheEntry(type="inline"),)}),
        (["--build-arg", "BUILDKIT_INLINE_CACHE=1"], {"cache_exports": (CacheEntry(type="inline"),)}),
        (["--build-arg", "BUILDKIT_INLINE_CACHE=0"], {"cache_exports": ()}),
        (["--secret", "id=a,src=Dockerfile"], {"secrets": (SecretSource(id="a", file=Path("Dockerfile")),)}),
        (["--secret", "id=a,env=ANY"], {"secrets": (SecretSource(id="a", env="ANY"),)}),
        (["--secret", "id=FROM_ENV"], {"secrets": (SecretSource(id="FROM_ENV", env="FROM_ENV"),)}),
        (["--secret", "id=Dockerfile"], {"secrets": (SecretSource(id="Dockerfile", file=Path("Dockerfile")),)}),
        (["--secret", "id=a,env=A", "--secret", "id=a,env=B"], {"secrets": (SecretSource(id="a", env="B"),)}),
        (["-o", "type=cacheonly"], {"exports": ()}),
        (["-o", "type=oci,dest=-", "-t", "app"], {"exports": (Export(type="oci", attrs={"name": "app"}, dest="-"),)}),
        (["-o", "-"], {"exports": (Export(type="tar", dest="-"),)}),
        (["--load"], {"exports": (Export(type="image"),)}),
        (["--load", "-o", "type=oci"], {"exports": (Export(type="oci", dest="-"), Export(type="image"))}),
        (["--load", "-o", "type=docker"], {"exports": (Export(type="image"),)}),
        (["--load=false", "-o", "type=oci"], {"exports": (Export(type="oci", dest="-"),)}),
    ],
)  # fmt: skip
def test_each_flag_in_the_request(
    args: list[str], expected: dict[str, Any], context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_ENV", "value")
    request = build("--progress=none", *args, ".")
    assert {key: getattr(request, key) for key in expected} == expected
    assert request.frontend == "dockerfile.v0"
    assert request.directories == {"context": context, "dockerfile": context}
    assert len(request.ref) == 32


def test_destinations_are_absolute(context: Path) -> None:
    request = build("-o", "out", "--output", "type=oci,dest=../a.tar", ".")
    assert [export.dest for export in request.exports] == [str(context / "out"), str(context.parent / "a.tar")]


def test_the_environment_gives_epoch_platform_and_agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    agent = listening(tmp_path / "agent")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "12")
    monkeypatch.setenv("DOCKER_DEFAULT_PLATFORM", "linux/arm64")
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    request = build("--ssh", "default", ".")
    assert request.options["build-arg:SOURCE_DATE_EPOCH"] == "12"
    assert request.platforms == (Platform(os="linux", architecture="arm64"),)
    assert request.ssh == (SshSource(id="default", paths=(agent,)),)
    assert build("--ssh", f"k={agent}", ".").ssh == (SshSource(id="k", paths=(agent,)),)
    assert "error: --ssh k is given twice\n" in refused("--ssh", f"k={agent}", "--ssh", f"k={agent}", ".").stderr
    assert build("--build-arg", "SOURCE_DATE_EPOCH=3", ".").options["build-arg:SOURCE_DATE_EPOCH"] == "3"
    assert build("--platform", "linux/amd64", ".").platforms == (Platform(os="linux", architecture="amd64"),)


def test_flags_from_before_buildkit_have_no_effect_and_are_not_in_the_help() -> None:
    builder = FakeBuilder()
    ran = run_cli(builder, "build", "--rm=true", "--force-rm", "-m", "1g", "--squash", "--cpu-quota=3", ".")
    assert ran.status == 0
    said = [line.partition(" has no effect: ")[0] for line in ran.stderr.splitlines() if "no effect" in line]
    assert sorted(said) == ["warning: --cpu-quota", "warning: --memory", "warning: --squash"]
    assert "--squash" not in run_cli(builder, "build", "--help").stdout


def test_global_flags_reach_the_configuration(tmp_path: Path) -> None:
    builder = FakeBuilder()
    assert run_cli(builder, "--root", str(tmp_path / "state"), "--debug", "build", ".").status == 0
    assert (builder.configs[0].root, builder.configs[0].debug) == (tmp_path / "state", True)


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        ([], 2, "error: the build context is missing\nhint: e.g. pybuild build . for the current directory"),
        ([".", "x"], 2, "error: got unexpected extra argument (x)"),
        (["--nonsense", "."], 2, "error: no such option '--nonsense'"),
        (["--buildarg", "A=b", "."], 2, "Did you mean '--build-arg'?"),
        (["--tag", "App", "."], 2, "error: -t/--tag: invalid image reference 'App': repository name"),
        (["-o", "type=x", "."], 2, "error: -o/--output: unknown output type 'x'\nhint: the types are image, oci"),
        (["--platform", "a/b/c/d", "."], 2, "error: --platform: invalid platform 'a/b/c/d'"),
        (["--secret", "x", "."], 2, "error: --secret: 'x' in 'x' is not key=value"),
        (["--ulimit", "x=1", "."], 2, "error: --ulimit: unknown limit 'x'"),
        (["--shm-size", "x", "."], 2, "error: --shm-size: invalid size 'x'"),
        (["--add-host", "x", "."], 2, "error: --add-host: 'x' is not HOST:IP"),
        (["--network", "x", "."], 2, "error: --network: unknown network mode 'x'"),
        (["--allow", "x", "."], 2, "error: --allow: unknown entitlement 'x'"),
        (["--build-arg", "=x", "."], 2, "error: --build-arg: '=x' has no name"),
        (["--progress", "x", "."], 2, "error: --progress: 'x' is not one of 'auto', 'tty', 'plain'"),
        (["--progress", "tty", "."], 2, "error: --progress tty: standard error is not a terminal"),
        (["-q", "--progress", "plain", "."], 2, "error: --quiet and --progress plain exclude each other"),
        (["--pull=maybe", "."], 2, "error: option '--pull' does not take a value"),
        (["--no-cache", "--no-cache-filter", "a", "."], 2, "error: --no-cache and --no-cache-filter exclude each"),
        (["-o", "-", "-o", "type=oci", "."], 2, "error: more than one --output goes to standard output"),
        (["-o", "out", "--iidfile", "id", "."], 2, "error: --iidfile: outputs of type local and tar are no image"),
        (["-o", "Dockerfile", "."], 2, "Dockerfile is a file, not a directory"),
        (["-o", "type=oci,dest=..", "."], 2, "is a directory\nhint: e.g. dest="),
        (["--secret", "id=absent", "."], 2, "error: --secret absent: there is no file absent"),
        (["--ssh", "default", "."], 2, "error: --ssh default: no agent is running (SSH_AUTH_SOCK is not set)\nhint:"),
        (["--ssh", "k=absent", "."], 2, "error: --ssh k: there is no absent"),
        (["--ssh", "k=Dockerfile", "."], 2, "error: --ssh k: Dockerfile is not the socket of an agent; keys are not"),
        (["-o", "type=cacheonly", "--iidfile", "id", "."], 2, "error: --iidfile: an output of type cacheonly is no"),
        (["--iidfile", "no/id", "."], 2, "error: cannot write no/id: there is no directory"),
        (["absent"], 1, "error: there is no build context 'absent'\nhint: the context is a directory, a git or"),
        (["ftp://x/y"], 1, "error: there is no build context 'ftp://x/y'"),
        (["Dockerfile"], 1, "context Dockerfile is not a directory\nhint: did you mean: --file Dockerfile ."),
        (["-f", "absent", "."], 1, "error: cannot read the Dockerfile absent: No such file or directory\n"),
        (["-f", "..", "."], 1, "error: the Dockerfile .. is a directory\nhint: did you mean --file ../Dockerfile?"),
        (["-f", "https://x/Dockerfile", "."], 1, "a Dockerfile cannot be a URL"),
        (["-f", "-", "-"], 1, "error: standard input cannot be both the context and the Dockerfile"),
        (["-"], 1, "error: standard input is empty"),
    ],
)  # fmt: skip
def test_what_a_mistake_is_told_before_anything_is_opened(args: list[str], status: int, message: str) -> None:
    ran = refused(*args)
    assert message in ran.stderr
    assert (ran.status, ran.stdout) == (status, "")
    assert "Traceback" not in ran.stderr
    assert ("See 'pybuild build --help'." in ran.stderr) == (status == 2)


def test_where_the_dockerfile_is(context: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/Build").write_bytes(DOCKERFILE)
    request = build("-f", "../other/Build", ".")
    assert request.options["filename"] == "Build"
    assert request.directories == {"context": context, "dockerfile": context / "../other"}
    (context / "Dockerfile").rename(context / "dockerfile")
    assert build("..//context/").options["filename"] == "dockerfile"


def test_a_missing_dockerfile_and_what_may_have_been_meant(context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (context / "Dockerfile").rename(context / "Dockerfile.dev")
    assert "error: there is no Dockerfile in the current directory\nhint: did you mean --file Dockerfile.dev?" in (
        refused(".").stderr
    )
    monkeypatch.chdir(context.parent)
    ran = refused("-f", "Dockerfile.dev", "context")
    assert "hint: did you mean --file context/Dockerfile.dev? It is relative to the current directory" in ran.stderr
    (context / "Dockerfile.dev").unlink()
    assert "error: there is no Dockerfile in context\nhint: --file names another\n" in refused("context").stderr


def test_a_dockerfile_on_standard_input(context: Path) -> None:
    request = build("-f", "-", ".", stdin=DOCKERFILE)
    assert request.inline_dockerfile == DOCKERFILE
    assert request.directories == {"context": context}
    alone = build("-", stdin=DOCKERFILE)
    assert (alone.inline_dockerfile, alone.directories, alone.context_archive) == (DOCKERFILE, {}, None)
    assert "standard input is a Dockerfile, and --file names another" in refused("-f", "x", "-", stdin=b"FROM x").stderr
    assert "larger than 16 MiB" in refused("-f", "-", ".", stdin=bytes(17 << 20)).stderr


def test_a_dockerfile_in_a_pipe(context: Path) -> None:
    read, write = os.pipe()
    os.write(write, DOCKERFILE)
    os.close(write)
    request = build("-f", f"/dev/fd/{read}", ".")
    os.close(read)
    assert (request.inline_dockerfile, request.directories) == (DOCKERFILE, {"context": context})


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_context_as_archive_on_standard_input(mode: str) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:
        info = tarfile.TarInfo("Dockerfile")
        info.size = 5000
        archive.addfile(info, io.BytesIO(bytes(5000)))

    class Reading(FakeBuilder):
        def build(self, request: BuildRequest, *args: Any) -> BuildOutcome:
            assert request.context_archive is not None
            parts = list(iter(lambda: request.context_archive(700), b""))
            assert max(map(len, parts)) <= 700
            assert b"".join(parts) == data.getvalue()
            return super().build(request, *args)

    request = build("-f", "sub/Build", "-", stdin=data.getvalue(), builder=Reading())
    assert (request.options, request.directories) == ({"filename": "sub/Build"}, {})


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/a/b.git#main:sub",
        "http://example/context.tar.gz",
        "git://example/a",
        "ssh://git@example/a",
        "git@github.com:a/b.git",
        "github.com/a/b",
    ],
)
def test_a_remote_context(url: str, tmp_path: Path) -> None:
    request = build(url)
    assert (request.options, request.directories) == ({"context": url, "filename": "Dockerfile"}, {})
    assert build("-f", "sub/Build", url).options["filename"] == "sub/Build"
    assert build("-f", "-", url, stdin=DOCKERFILE).inline_dockerfile == DOCKERFILE
    (tmp_path / "Build").write_bytes(DOCKERFILE)
    local = build("-f", str(tmp_path / "Build"), url)
    assert local.directories == {"dockerfile": tmp_path}
    assert (local.options["filename"], local.options["dockerfilekey"]) == ("Build", "dockerfile")


def test_results_in_files(tmp_path: Path) -> None:
    descriptor = {"digest": str(MANIFEST), "size": 3}
    metadata = {
        "containerimage.config.digest": str(CONFIG),
        "containerimage.digest": str(MANIFEST),
        "containerimage.descriptor": b64encode(json.dumps(descriptor).encode()).decode(),
        "image.name": "app",
    }
    builder = FakeBuilder(outcome=BuildOutcome(ref="", metadata=metadata))
    build("--iidfile", "../id", "--metadata-file", "../meta.json", ".", builder=builder)
    assert (tmp_path / "id").read_text() == CONFIG
    expected = {
        **metadata,
        "buildx.build.ref": f"default/default/{builder.requests[0].ref}",
        "containerimage.descriptor": descriptor,
    }
    assert json.loads((tmp_path / "meta.json").read_text()) == expected
    assert {path.name for path in tmp_path.iterdir()} == {"context", "id", "meta.json"}


def test_a_failed_build_leaves_no_stale_image_id(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("old")
    ran = run_cli(FakeBuilder(error=HostError("no")), "build", "--iidfile", "../id", ".")
    assert (ran.status, (tmp_path / "id").exists()) == (3, False)


@pytest.mark.parametrize("args", [["-q"], ["--quiet"], ["--progress=quiet"], ["-q", "--progress", "quiet"]])
def test_quiet_prints_the_image_id_alone(args: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDKIT_PROGRESS", "quiet")
    warning = WarningEvent(vertex="x", message="careful")
    ran = run_cli(FakeBuilder(events=[warning]), "build", *args, ".")
    assert ran == Ran(status=0, stdout=f"{CONFIG}\n", stderr="")


def test_quiet_prefers_the_config_and_says_nothing_beside_a_tar() -> None:
    index = FakeBuilder(outcome=BuildOutcome(ref="", image_digest=MANIFEST))
    assert run_cli(index, "build", "-q", ".").stdout == f"{MANIFEST}\n"
    assert run_cli(FakeBuilder(), "build", "-q", "-o", "-", ".").stdout == ""
    assert run_cli(FakeBuilder(outcome=BuildOutcome(ref="")), "build", "-q", ".").stdout == ""


def test_progress_follows_the_environment_only_when_it_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    done = VertexEvent(digest="a", name="[1/1] RUN x", started=1.0, completed=1.3, outcome=Outcome.DONE)
    builder = FakeBuilder(events=[done])
    plain = "#1 [1/1] RUN x\n#1 DONE 0.3s\n"
    assert run_cli(builder, "build", ".").stderr == plain
    monkeypatch.setenv("BUILDKIT_PROGRESS", "rawjson")
    assert json.loads(run_cli(builder, "build", ".").stderr)["vertexes"][0]["digest"] == "a"
    assert run_cli(builder, "build", "--progress", "plain", ".").stderr == plain
    assert run_cli(builder, "build", "--quiet", ".").stderr == ""
    monkeypatch.setenv("BUILDKIT_PROGRESS", "loud")
    ran = refused(".")
    assert (ran.status, "BUILDKIT_PROGRESS: 'loud' is not one of auto, tty" in ran.stderr) == (2, True)


def test_warnings_come_last_and_in_full_with_debug() -> None:
    warning = WarningEvent(vertex="x", message="FromAsCasing: a\x1b[2Jb (line 1)", detail=("more",), url="https://doc")
    builder = FakeBuilder(events=[warning, warning])
    assert run_cli(builder, "build", ".").stderr == (
        "\n1 warning found (use --debug to expand):\n - FromAsCasing: ab (line 1)\n"
    )
    assert run_cli(builder, "--debug", "build", ".").stderr == (
        "\n1 warning found:\n - FromAsCasing: ab (line 1)\nmore\nMore info: https://doc\n"
    )
    assert run_cli(builder, "build", "--progress=none", ".").stderr == ""
