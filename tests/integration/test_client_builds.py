"""`pybuild --addr` before pybuildd: what a build says and leaves is what the engine in the command says and leaves."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builds import FIXTURES, PYBUILD, Store, write
from tests.fakes.daemon import Daemon, daemon
from tests.fakes.own_registry import own_registry
from tests.fakes.remote_command import Remote, remote
from tests.integration.test_daemon_life import free_port
from tests.integration.test_exports import agent, with_perl
from tests.integration.test_registry_docker import certificate
from tests.integration.test_registry_serve import HASH

pytest_plugins = [FIXTURES]
__all__ = ["agent"]  # a fixture

DOCKERFILE = """\
FROM base
COPY a.txt /srv/
RUN --mount=type=secret,id=word cat /srv/a.txt /run/secrets/word > /srv/both
"""


@pytest.fixture(scope="module")
def twins(store_with_base: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Store]]:
    """A daemon, and a state directory with the same in it for commands without one."""
    place = tmp_path_factory.mktemp("client")
    theirs, ours = store_with_base.copy(place / "theirs"), store_with_base.copy(place / "ours")
    with daemon(theirs.root, place) as running:
        yield running, ours


@pytest.fixture
def running(twins: tuple[Daemon, Store]) -> Daemon:
    return twins[0]


@pytest.fixture
def there(twins: tuple[Daemon, Store]) -> Remote:
    return remote(*twins)


@pytest.fixture
def here(twins: tuple[Daemon, Store]) -> Store:
    return twins[1]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    files = {"Dockerfile": DOCKERFILE, "a.txt": "mine\n", "word": "s3cret", "ignored": "x", ".dockerignore": "ignored"}
    return write(tmp_path / "context", files)


# --- what comes out ----------------------------------------------------------------------------------------------


def test_a_context_a_secret_and_a_directory(there: Remote, context: Path, tmp_path: Path) -> None:
    write(tmp_path / "out", {"kept": "before"})
    secret = f"id=word,src={context}/word"
    built = there.run("build", context, "--secret", secret, "-o", tmp_path / "out")
    assert built.ran == [
        "COPY a.txt /srv/",
        "RUN --mount=type=secret,id=word cat /srv/a.txt /run/secrets/word > /srv/both",
    ]
    assert (tmp_path / "out/srv/both").read_text() == "mine\ns3cret"
    assert (tmp_path / "out/kept").read_text() == "before"
    again = there.run("build", context, "--secret", secret, "-o", f"type=local,mode=delete,dest={tmp_path}/out")
    assert again.cached == built.ran
    assert not (tmp_path / "out/kept").exists()
    assert (tmp_path / "out/srv/both").read_text() == "mine\ns3cret"


def test_the_same_image_as_without_a_daemon(there: Remote, here: Store, context: Path, tmp_path: Path) -> None:
    fixed = {"environment": {"SOURCE_DATE_EPOCH": "1700000000"}}
    flags = ("--build-arg", "SOURCE_DATE_EPOCH", "--secret", f"id=word,src={context}/word")
    found = []
    for place, builder in (("there", there.run), ("here", here.command)):
        archive, metadata = tmp_path / f"{place}.tar", tmp_path / f"{place}.json"
        export = f"type=oci,dest={archive},rewrite-timestamp=true"
        built = builder("build", context, *flags, "-o", export, "--metadata-file", metadata, **fixed)
        document = json.loads(metadata.read_text())
        del document["buildx.build.ref"]
        found.append((document, hashlib.sha256(archive.read_bytes()).hexdigest(), built.ran or built.cached))
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["tar", "oci", "docker"])
def test_archives(there: Remote, context: Path, tmp_path: Path, kind: str) -> None:
    archive = tmp_path / "image.tar"
    archive.write_text("from before")
    flags = ("--secret", f"id=word,src={context}/word", "--progress", "quiet")
    there.run("build", context, *flags, "-o", f"type={kind},dest={archive}")
    with tarfile.open(archive) as opened:
        names = set(opened.getnames())
    assert {"tar": "srv/both", "oci": "index.json", "docker": "manifest.json"}[kind] in names
    assert sorted(os.listdir(tmp_path)) == ["context", "image.tar"]


def test_an_archive_on_standard_output(there: Remote, context: Path) -> None:
    argv = [PYBUILD, "--addr", there.address, "build", "--progress", "quiet", "-o", "-", context]
    done = subprocess.run(
        [str(word) for word in [*argv, "--secret", f"id=word,src={context}/word"]],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    listed = subprocess.run(["tar", "tf", "-"], input=done.stdout, capture_output=True, check=True).stdout
    assert b"srv/both" in listed


def test_a_layout_in_a_directory(there: Remote, here: Store, tmp_path: Path) -> None:
    """Two builds, each in one directory and in another: what is there is what the engine in the command leaves."""
    context = write(tmp_path / "context", {"Dockerfile": "FROM base\nARG SOURCE_DATE_EPOCH\nCOPY a.txt /srv/\n"})
    epoch = {"environment": {"SOURCE_DATE_EPOCH": "1700000000"}}
    for content, name in (("one", "app:1"), ("two", "app:2")):
        write(context, {"a.txt": content})
        for place, builder in (("there", there.run), ("here", here.command)):
            output = f"type=oci,tar=false,dest={tmp_path}/{place}/first,rewrite-timestamp=true"
            other = f"type=docker,tar=false,name=other:3,dest={tmp_path}/{place}/second,rewrite-timestamp=true"
            flags = ("--build-arg", "SOURCE_DATE_EPOCH", "-o", output, "-o", f"{tmp_path}/{place}/tree", "-o", other)
            builder("build", context, "-t", name, *flags, **epoch)
    assert subprocess.run(["diff", "-r", tmp_path / "there", tmp_path / "here"], check=False).returncode == 0
    assert len(json.loads((tmp_path / "there/first/index.json").read_text())["manifests"]) == 2
    write(tmp_path, {"file": ""})
    said = there.run("build", context, "-o", f"type=oci,tar=false,dest={tmp_path}/file/out", status=1).error
    assert f"cannot write to {tmp_path}/file/out: Not a directory" in said


def test_several_outputs(there: Remote, context: Path, tmp_path: Path) -> None:
    outputs = [f"type=oci,dest={tmp_path}/a.tar", f"{tmp_path}/out", f"type=oci,tar=false,dest={tmp_path}/layout"]
    outputs += ["type=image,name=several", f"type=tar,dest={tmp_path}/b.tar"]
    secret = f"id=word,src={context}/word"
    there.run("build", context, "--secret", secret, *(word for output in outputs for word in ("-o", output)))
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "b.tar", "context", "layout", "out"]
    assert (tmp_path / "out/srv/both").read_text() == "mine\ns3cret"
    assert "several" in there.run("image", "ls").stdout


@pytest.mark.parametrize("compressed", ["", "z", "j", "J"])
def test_a_context_on_standard_input(
    there: Remote, here: Store, context: Path, tmp_path: Path, compressed: str
) -> None:
    archive = subprocess.run(["tar", f"c{compressed}", "-C", context, "."], capture_output=True, check=True).stdout
    secret = f"id=word,src={context}/word"
    for name, run in (("there", there.run), ("here", here.command)):
        built = run("build", "-", "--secret", secret, "-o", tmp_path / name, stdin=archive)
        assert built.step("load remote build context").outcome == "done"
        assert (tmp_path / name / "srv/both").read_text() == "mine\ns3cret"
    write(context, {"sub/Other": "FROM scratch\nCOPY ignored /\n"})
    archive = subprocess.run(["tar", "c", "-C", context, "."], capture_output=True, check=True).stdout
    there.run("build", "-", "-f", "sub/Other", "-o", tmp_path / "other", stdin=archive)
    assert os.listdir(tmp_path / "other") == ["ignored"]  # of an archive everything was meant, as BuildKit has it
    torn = there.run("build", "-", "--secret", secret, stdin=archive[:2000], status=1).error
    assert torn == here.command("build", "-", "--secret", secret, stdin=archive[:2000], status=1).error


def test_what_a_file_system_can_hold(there: Remote, tmp_path: Path) -> None:
    """Links, modes, names that are no UTF-8, an empty directory: in the context, and in what comes back."""
    context = write(
        tmp_path / "context", {"Dockerfile": "FROM scratch\nCOPY tree /tree\n", "tree/run": "#!", "tree/é": "e"}
    )
    tree = context / "tree"
    (tree / "run").chmod(0o751)
    (tree / "empty").mkdir(mode=0o700)
    os.symlink("run", tree / "link")
    os.link(tree / "run", tree / "same")
    Path(os.fsdecode(bytes(tree) + b"/\xff")).write_text("odd")
    there.run("build", context, "-o", tmp_path / "out")
    out = tmp_path / "out/tree"
    assert sorted(os.listdir(bytes(out))) == sorted(os.listdir(bytes(tree)))
    assert stat.S_IMODE((out / "run").stat().st_mode) == 0o751
    assert stat.S_IMODE((out / "empty").stat().st_mode) == 0o700
    assert os.readlink(out / "link") == "run"
    assert Path(os.fsdecode(bytes(out) + b"/\xff")).read_text() == "odd"


def test_many_files_and_a_large_one(there: Remote, tmp_path: Path) -> None:
    files = {f"d{number % 7}/f{number}": f"{number}" for number in range(3000)}
    context = write(
        tmp_path / "context", {"Dockerfile": "FROM scratch\nCOPY . /\n", "large": os.urandom(9 << 20), **files}
    )
    there.run("build", context, "-o", tmp_path / "out")
    assert subprocess.run(["diff", "-r", context, tmp_path / "out"], check=False).returncode == 0
    (context / "d0/f0").write_text("changed")
    (context / "d1/f1").unlink()
    there.run("build", context, "-o", f"type=local,mode=delete,dest={tmp_path}/out")
    assert subprocess.run(["diff", "-r", context, tmp_path / "out"], check=False).returncode == 0


# --- what it asks its client -------------------------------------------------------------------------------------


def test_an_agent(there: Remote, agent: Path, tmp_path: Path) -> None:
    built = there.run("build", with_perl(tmp_path / "perl", ""), "--ssh", f"default={agent}")
    assert built.step("RUN --mount=type=ssh").output == "no keys\n"


def test_dockerfiles_on_standard_input(there: Remote, context: Path) -> None:
    alone = there.run("build", "-", stdin=b"FROM base\nRUN echo alone\n")
    assert alone.step("RUN echo alone").output == "alone\n"
    beside = there.run("build", "-f", "-", context, stdin=b"FROM base\nCOPY a.txt /\nRUN cat /a.txt\n")
    assert beside.ran[0] == "COPY a.txt /"


HELPER = """#!/bin/sh
test "$1" = get || exit 1
grep -q 127.0.0.1 || exit 1
echo '{"Username": "alice", "Secret": "secret"}'
"""


@pytest.mark.parametrize("kept", ["in the file", "by a helper"])
def test_a_registry_that_wants_a_login(there: Remote, tmp_path: Path, kept: str) -> None:
    write(tmp_path, {"users": f"alice:{HASH}\n", "bin/docker-credential-fake": HELPER, "docker/config.json": "{}"})
    (tmp_path / "bin/docker-credential-fake").chmod(0o755)
    context = write(tmp_path / "context", {"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    login = {"environment": {"DOCKER_CONFIG": str(tmp_path / "docker"), "PATH": path}}
    with own_registry(tmp_path / "registry", "--htpasswd", tmp_path / "users") as registry:
        name = f"{registry.address}/app"
        assert "login" in there.run("build", context, "-t", name, "--push", status=1, **login).error
        auths = {"auths": {registry.address: {"auth": "YWxpY2U6c2VjcmV0"}}}  # alice:secret
        logins = auths if kept == "in the file" else {"credsStore": "fake"}
        (tmp_path / "docker/config.json").write_text(json.dumps(logins))
        there.run("build", context, "-t", name, "--push", **login)
        assert any(line.method == "PUT" and line.status == 201 for line in registry.log())


# --- how it fails ------------------------------------------------------------------------------------------------


FAILURES = {
    "a step": ("FROM base\nRUN echo before; exit 3\n", ()),
    "a word": ("FROM base\nRUNN true\n", ()),
    "a file": ("FROM base\nCOPY nothing /\n", ()),
    "an image": ("FROM 127.0.0.1:1/nothing\n", ()),
    "a target": ("FROM base\n", ("--target", "other")),
    "no agent": ("FROM base\nRUN --mount=type=ssh,required=true true\n", ()),
    "no secret": ("FROM base\nRUN --mount=type=secret,id=word,required=true true\n", ()),
    "a secret": ("FROM base\nRUN --mount=type=secret,id=word true\n", ("--secret", "id=word,src=LARGE")),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failures_are_told_as_without_a_daemon(there: Remote, here: Store, tmp_path: Path, name: str) -> None:
    dockerfile, flags = FAILURES[name]
    context = write(tmp_path / "context", {"Dockerfile": dockerfile})
    write(tmp_path, {"large": "x" * (600 << 10)})
    command = ("build", context, *(flag.replace("LARGE", str(tmp_path / "large")) for flag in flags))
    assert there.run(*command, status=1).error == here.command(*command, status=1).error


def test_a_failed_export_leaves_what_was_there(there: Remote, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": "FROM base\nRUN exit 1\n"})
    (tmp_path / "image.tar").write_text("before")
    there.run("build", context, "-o", f"type=oci,dest={tmp_path}/image.tar", status=1)
    assert (tmp_path / "image.tar").read_text() == "before"


def test_a_full_disk_is_told_of_as_what_the_user_has_named(
    there: Remote, here: Store, context: Path, tmp_path: Path
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    write(tmp_path, {"context/Dockerfile": "FROM scratch\nCOPY large /\n", "context/large": "x" * 100_000})
    outputs = {"-": "to standard output", f"{full}/out": f"to {full}/out", f"type=tar,dest={full}/a": f"{full}/a"}
    for where in ([], ["--addr", there.address]):
        for output, place in outputs.items():
            small = f'mount -t tmpfs -o size=64k none {full} && exec "$@" > /dev/full'
            command = [str(PYBUILD), *where, "build", "--no-cache", "-q", "-o", output, str(context)]
            ran = subprocess.run(
                ["unshare", "--mount", "sh", "-c", small, "-", *command],
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                env=here.environment,
            )
            assert ran.returncode == 1
            assert f"cannot write {place}: No space left on device\n" in ran.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted(there: Remote, running: Daemon, tmp_path: Path, number: signal.Signals) -> None:
    marker = f"client-{number.name}-{os.getpid()}"
    context = write(tmp_path / "context", {"Dockerfile": f"FROM base\nRUN echo up; MARKER={marker} sleep 1000\n"})
    with there.start("build", context) as command:
        command.until_output("up")
        command.process.send_signal(number)
        ended = command.wait(status=130)
    assert "Traceback" not in ended.error
    assert ended.step("RUN echo up").outcome == "canceled"
    assert processes(marker) == []


def processes(marker: str) -> list[str]:
    done = subprocess.run(["pgrep", "-f", marker], capture_output=True, text=True, check=False)
    return done.stdout.split()


def test_a_daemon_that_goes(store_with_base: Store, tmp_path: Path) -> None:
    store = store_with_base.copy(tmp_path / "root")
    context = write(tmp_path / "context", {"Dockerfile": "FROM base\nRUN echo up; sleep 1000\n"})
    with daemon(store.root, tmp_path / "d") as running:
        there = remote(running, store)
        with there.start("build", context) as command:
            command.until_output("up")
            running.process.kill()
            ended = command.wait(status=1)
    assert f"the daemon at {there.address}" in ended.error
    assert "Traceback" not in ended.error


# --- the store ---------------------------------------------------------------------------------------------------


def test_usage_and_pruning(store_with_base: Store, tmp_path: Path) -> None:
    store = store_with_base.copy(tmp_path / "root")
    context = write(tmp_path / "context", {"Dockerfile": "FROM base\nRUN echo pruned > /x\n"})
    with daemon(store.root, tmp_path / "d") as running:
        there = remote(running, store)
        there.run("build", context)
        listed = there.run("du").stdout
        assert "RECLAIMABLE" in listed
        assert there.run("du", "--filter", "type=nothing").stdout.count("\n") == 1
        assert there.run("prune", "-f", "--all").stdout.startswith("ID ")
        assert there.run("build", context).ran == ["RUN echo pruned > /x"]


# --- ways to a daemon --------------------------------------------------------------------------------------------


def test_tls(store_with_base: Store, tmp_path: Path) -> None:
    ca, _ = certificate(tmp_path, "ca")
    server, key = certificate(tmp_path, "server", signer=str(tmp_path / "ca"))
    mine, my_key = certificate(tmp_path, "client", signer=str(tmp_path / "ca"))
    store = store_with_base.copy(tmp_path / "root")
    address = f"127.0.0.1:{free_port()}"
    flags = ("--addr", f"tcp://{address}", "--tlscert", server, "--tlskey", key, "--tlscacert", ca)
    with daemon(store.root, tmp_path / "d", *flags):
        there = Remote(f"tcp://{address}", store.environment)
        trusted = ("--tlscacert", ca)
        assert "ID" in there.run(*trusted, "--tlscert", mine, "--tlskey", my_key, "du").stdout
        for wrong in (trusted, ("--tlscert", mine, "--tlskey", my_key), ()):
            refused = there.run(*wrong, "du", status=1).error
            assert refused.startswith(f"error: cannot reach the daemon at tcp://{address}: ")
            assert refused.count("\n") == 1


SSH = """#!/bin/sh
while [ "$1" != -- ]; do shift; done
test "$2" = elsewhere || { echo "ssh: no host $2" >&2; exit 255; }
shift 2
exec sh -c "$*"
"""


def test_ssh(running: Daemon, there: Remote, context: Path, tmp_path: Path) -> None:
    """A program that passes for ssh: it runs what it is told here, as `sh -c` would there."""
    write(tmp_path / "bin", {"ssh": SSH})
    (tmp_path / "bin/ssh").chmod(0o755)
    path = {"PATH": f"{tmp_path}/bin:{PYBUILD.parent}:{os.environ['PATH']}"}
    path_there = there.address.removeprefix("unix://")
    far = Remote(f"ssh://ann@elsewhere:22{path_there}", {**path, "HOME": "/nonexistent"})
    far.run("build", context, "--secret", f"id=word,src={context}/word", "-o", tmp_path / "out")
    assert (tmp_path / "out/srv/both").read_text() == "mine\ns3cret"
    far.address = "ssh://nowhere"
    assert "ssh: no host nowhere" in far.run("du", status=1).error
    far.address = f"ssh://elsewhere{tmp_path}/no.sock"
    assert "No such file or directory" in far.run("du", status=1).error


def test_where_there_is_no_daemon(there: Remote, tmp_path: Path) -> None:
    there.address = f"unix://{tmp_path}/no.sock"
    said = there.run("du", status=1).error
    assert said.startswith(
        f"error: cannot connect to the daemon at unix://{tmp_path}/no.sock: No such file or directory\n"
    )
    there.address = "/run/x.sock"
    assert "you meant unix:///run/x.sock ?" in there.run("du", status=1).error
    there.address = "unix:///x"
    assert "--root and --addr exclude each other" in there.run("--root", tmp_path, "du", status=2).error


def test_neither_trio_nor_the_engine_is_imported(there: Remote, context: Path) -> None:
    program = (
        "import sys; from buildengine.cli.main import main; status = main(sys.argv[1:]);"
        "heavy = [m for m in sys.modules if m.split('.')[0] in ('trio', 'solver', 'frontends', 'sqlite3', 'rich')"
        " or m in ('buildengine.client.layout', 'buildengine.client.stores', 'buildengine.client.throughssh')"
        " or m.startswith(('buildengine.daemon', 'worker.runtime', 'google.protobuf.json_format'))];"
        "print(status, heavy)"
    )
    argv = ["--addr", there.address, "build", "-q", "-o", "type=cacheonly", "--secret", f"id=word,src={context}/word"]
    done = subprocess.run(
        [sys.executable, "-c", program, *argv, str(context)], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("0 []\n"), done.stdout
