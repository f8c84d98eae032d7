"""Outputs of whole builds, and what a build does beside its steps: agents, name servers, garbage collection."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from buildengine.daemon import collector
from buildengine.daemon.collector import STAMP
from cache.opened import open_cache
from tests.builds import FIXTURES, Store, write
from worker.oci import layout

pytest_plugins = [FIXTURES]

BOTH = ("--platform", "linux/amd64,linux/arm64")


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write(tmp_path / "context", {"Dockerfile": "FROM scratch\nCOPY files /\n", "files/a": "1", "files/d/b": "2"})


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


# --- layouts


@pytest.mark.parametrize("kind", ["oci", "docker"])
async def test_a_layout_in_a_directory(kind: str, store: Store, context: Path, tmp_path: Path) -> None:
    out = tmp_path / "new/out"
    for name in ("one:1", "two:2"):
        await store.build(context, "-t", name, "-o", f"type={kind},tar=false,dest={out}")
        (context / "files/a").write_text(name)
    assert set(os.listdir(out)) == {"blobs", "index.json", "oci-layout"}
    images = layout.parse_index_json((out / "index.json").read_bytes())
    assert [image.names for image in images] == [("docker.io/library/one:1",), ("docker.io/library/two:2",)]
    assert all((out / "blobs/sha256" / image.target.digest.hex).is_file() for image in images)


async def test_a_layout_of_several_platforms(store: Store, context: Path, tmp_path: Path) -> None:
    await store.build(context, *BOTH, "-o", f"type=oci,tar=false,dest={tmp_path / 'out'}")
    (entry,) = json.loads((tmp_path / "out/index.json").read_bytes())["manifests"]
    index = json.loads((tmp_path / "out/blobs" / entry["digest"].replace(":", "/")).read_bytes())
    assert [manifest["platform"]["architecture"] for manifest in index["manifests"]] == ["amd64", "arm64"]


async def test_a_layout_needs_a_directory_it_can_make(store: Store, context: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    built = await store.build(context, "-o", f"type=oci,tar=false,dest={tmp_path}/file/out", status=1)
    assert built.error == f"cannot write to {tmp_path}/file/out: Not a directory"


async def test_an_archive_of_one_image(store: Store, context: Path, tmp_path: Path) -> None:
    for more in ("", ",tar=false"):
        built = await store.build(context, *BOTH, "-o", f"type=docker{more},dest={tmp_path / 'out'}", status=1)
        assert built.error == "type=docker holds one image, not 2 platforms"
        assert not built.steps
        assert not (tmp_path / "out").exists()
    await store.build(context, "--platform", "linux/arm64", "-o", f"type=docker,dest={tmp_path / 'out'}")
    assert tarfile.is_tarfile(tmp_path / "out")


# --- files


async def test_what_is_not_in_the_result_is_deleted(store: Store, context: Path, tmp_path: Path) -> None:
    out = write(tmp_path / "out", {"a": "old", "gone": "", "d/b": "old", "d/gone": "", "deep/er/gone": ""})
    await store.build(context, "-o", f"type=local,dest={out}")
    assert {"gone", "d/gone", "deep/er/gone"} <= set(names(out))
    await store.build(context, "-o", f"type=local,mode=delete,dest={out}")
    assert names(out) == ["a", "d", "d/b"]
    assert ((out / "a").read_text(), (out / "d/b").read_text()) == ("1", "2")


async def test_deleting_beside_platforms(store: Store, context: Path, tmp_path: Path) -> None:
    out = write(tmp_path / "out", {"a": "", "linux_amd64/x": "", "linux_arm64/d/y": "", "linux_s390x/a": ""})
    await store.build(context, *BOTH, "-o", f"type=local,mode=delete,dest={out}")
    kept = [f"{platform}{path}" for platform in ("linux_amd64", "linux_arm64") for path in ("", "/a", "/d", "/d/b")]
    assert names(out) == kept


async def test_not_the_whole_host_is_deleted(store: Store, context: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    for dest in ("/", tmp_path / "link"):
        built = await store.build(context, "-o", f"type=local,mode=delete,dest={dest}", status=1)
        assert built.error == "mode=delete would delete everything on this host"


# --- images


async def test_an_image_that_is_not_stored(store: Store, context: Path) -> None:
    await store.build(context, "-t", "app", "-o", "type=image,store=false")
    async with open_cache(store.root) as cache:
        assert [image.name for image in cache.images.list()] == ["docker.io/library/base:latest"]


def test_an_image_by_its_id(store: Store, context: Path, tmp_path: Path) -> None:
    with_id = store.command("build", context, "-t", "app:1", "--iidfile", tmp_path / "id")
    assert with_id.status == 0
    whole = (tmp_path / "id").read_text()
    for reference, tags in ((whole, None), (whole[7:], None), ("app:1", ["app:1"])):
        store.command("image", "save", reference, "-o", tmp_path / "saved.tar")
        with tarfile.open(tmp_path / "saved.tar") as archive:
            member = archive.extractfile("manifest.json")
            assert member is not None
            assert json.loads(member.read())[0]["RepoTags"] == tags
    removed = store.command("image", "rm", whole[7:])
    assert removed.stdout.splitlines()[0] == "Untagged: app:1"
    assert "app" not in store.command("image", "ls").stdout


def test_an_id_with_several_names_is_not_removed_by_chance(store: Store, context: Path, tmp_path: Path) -> None:
    store.command("build", context, "-t", "app:1", "-t", "app:2", "--iidfile", tmp_path / "id")
    whole = (tmp_path / "id").read_text()
    assert "has several names: app:" in store.command("image", "rm", whole[7:], status=1).error
    assert store.command("image", "rm", "--force", whole[7:]).stdout.count("Untagged: ") == 2


# --- agents


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """The socket of an agent that answers every request as one that has no keys does."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "agent"))
        server.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"no keys\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield tmp_path / "agent"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


# perl without its modules: 1 is AF_UNIX and SOCK_STREAM
ASKS = """\
FROM base
COPY perl /
RUN --mount=type=ssh{} perl -e 'socket(S,1,1,0); connect(S,pack("Sa*",1,$ENV{{SSH_AUTH_SOCK}})) or die $!; print <S>'
"""


def with_perl(context: Path, mount: str) -> Path:
    """A context whose Dockerfile asks the agent, with the host's perl, which every Debian has."""
    write(context, {"Dockerfile": ASKS.format(mount)})
    return with_program(context, "perl")


def with_program(context: Path, name: str) -> Path:
    """The host's program and its libraries, below a directory of its name."""
    found = subprocess.run(["ldd", f"/usr/bin/{name}"], check=True, capture_output=True, text=True).stdout
    files = [f"/usr/bin/{name}", *(word for word in found.split() if word.startswith("/"))]
    write(context, {f"{name}{file}": Path(file).read_bytes() for file in files})
    for file in files:
        (context / f"{name}{file}").chmod(0o755)
    return context


# a user that may, then the socket as the step sees it, then one that may not
OWNED = """\
FROM base
COPY perl /
USER 1000
RUN --mount=type=ssh,uid=1000,gid=1001,mode=0640 perl -e '{ask}'; stat -c '%u %g %a' $SSH_AUTH_SOCK
RUN --mount=type=ssh stat -c '%u %g %a' $SSH_AUTH_SOCK; perl -e '{ask}' || test $? = 13
""".format(ask='socket(S,1,1,0); connect(S,pack("Sa*",1,$ENV{SSH_AUTH_SOCK})) or exit $!; print <S>')


async def test_the_socket_of_an_agent_has_the_owner_and_mode_of_its_mount(
    store: Store, agent: Path, tmp_path: Path
) -> None:
    context = with_perl(tmp_path / "context", "")
    (context / "Dockerfile").write_text(OWNED)
    before = agent.stat()
    built = await store.build(context, "--ssh", f"default={agent}")
    assert built.step("RUN --mount=type=ssh,uid").output == "no keys\n1000 1001 640\n"
    assert built.step("RUN --mount=type=ssh stat").output == "0 0 600\n"
    assert (agent.stat().st_uid, agent.stat().st_mode) == (before.st_uid, before.st_mode)
    assert os.listdir(store.root / "ingest") == []


async def test_a_step_that_fails_beside_its_agent(store: Store, agent: Path, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": "FROM base\nRUN --mount=type=ssh exit 3\n"})
    built = await store.build(context, "--ssh", f"default={agent}", status=1)
    assert "exit code: 3" in built.error
    assert os.listdir(store.root / "ingest") == []


def test_a_killed_build_leaves_no_socket(store: Store, agent: Path, tmp_path: Path) -> None:
    waits = write(tmp_path / "waits", {"Dockerfile": "FROM base\nRUN --mount=type=ssh echo here; sleep 100\n"})
    with store.start("build", waits, "--ssh", f"default={agent}") as command:
        command.until_output("here")
    assert len(os.listdir(store.root / "ingest")) == 1
    store.command("build", write(tmp_path / "next", {"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}))
    assert os.listdir(store.root / "ingest") == []


@pytest.mark.parametrize(("given", "asked"), [("default={}", ""), ("other={}", ",id=other")])
async def test_a_step_talks_to_an_agent(given: str, asked: str, store: Store, agent: Path, tmp_path: Path) -> None:
    context = with_perl(tmp_path / "context", asked)
    built = await store.build(context, "--ssh", given.format(agent))
    assert built.step("RUN").output == "no keys\n"


@pytest.fixture
def openssh(tmp_path: Path) -> Iterator[Path]:
    """The socket of OpenSSH's agent, which has the key of `id` and `id.pub` beside it."""
    path = tmp_path / "openssh"
    key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "the key of a test", "-f", str(tmp_path / "id")]
    subprocess.run(key, check=True)
    with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it says where it listens once it does
        add = ["ssh-add", "-q", str(tmp_path / "id")]
        subprocess.run(add, check=True, env={**os.environ, "SSH_AUTH_SOCK": str(path)})
        yield path
        process.terminate()


def fingerprint(public: Path) -> str:
    return subprocess.run(["ssh-keygen", "-l", "-f", public], check=True, capture_output=True, text=True).stdout


async def test_keys_of_openssh_are_seen_and_sign_in_a_step_and_stay_outside(
    store: Store, openssh: Path, tmp_path: Path
) -> None:
    public = (openssh.parent / "id.pub").read_text()
    files = {"Dockerfile": "FROM base\nCOPY ssh-add id.pub /\nRUN --mount=type=ssh ssh-add -l && ssh-add -T /id.pub\n"}
    context = with_program(write(tmp_path / "context", {**files, "id.pub": public}), "ssh-add")
    built = await store.build(context, "--ssh", f"default={openssh}")
    assert built.step("RUN").output == fingerprint(openssh.parent / "id.pub")
    secret = (openssh.parent / "id").read_bytes().splitlines()[2]
    assert not [path for path in store.root.rglob("*") if path.is_file() and secret in path.read_bytes()]


async def test_a_step_without_its_agent(store: Store, agent: Path, tmp_path: Path) -> None:
    needs = write(tmp_path / "needs", {"Dockerfile": "FROM base\nRUN --mount=type=ssh,required=true true\n"})
    built = await store.build(needs, "--ssh", f"other={agent}", status=1)
    assert 'no SSH key "default" forwarded from the client' in built.error
    may = write(tmp_path / "may", {"Dockerfile": "FROM base\nRUN --mount=type=ssh test ! -e $SSH_AUTH_SOCK\n"})
    await store.build(may)


# --- what a build does beside its steps


async def test_name_servers_of_the_configuration(store: Store, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": "FROM base\nRUN cat /etc/resolv.conf\n"})
    store.environment["PYBUILD_DNS_NAMESERVERS"] = "192.0.2.1,192.0.2.2"
    output = (await store.build(context)).step("RUN").output
    assert [line for line in output.splitlines() if line.startswith("nameserver")] == [
        "nameserver 192.0.2.1",
        "nameserver 192.0.2.2",
    ]


async def test_garbage_is_collected_once_a_minute(store: Store, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": "FROM base\nRUN echo 1 > /1\n"})
    store.environment["PYBUILD_WORKER_MAX_USED_SPACE"] = "1"
    stamp = store.root / STAMP
    stamp.unlink()
    assert (await store.build(context)).ran == ["RUN echo 1 > /1"]
    assert time.time() - stamp.stat().st_mtime < 60
    assert (await store.build(context)).ran == ["RUN echo 1 > /1"]  # it was too much, and went
    assert (await store.build(context)).ran == []  # it is too much, but the minute is not over
    os.utime(stamp, (0, 0))
    assert (await store.build(context)).ran == []
    assert (await store.build(context)).ran == ["RUN echo 1 > /1"]


async def test_a_collector_that_is_off_or_has_nothing_to_do(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = write(tmp_path / "context", {"Dockerfile": "FROM base\nRUN echo 1 > /1\n"})
    monkeypatch.setattr(collector, "INTERVAL", 0)
    assert (await store.build(context)).ran
    assert (await store.build(context)).ran == []
    store.environment |= {"PYBUILD_WORKER_MAX_USED_SPACE": "1", "PYBUILD_WORKER_GC": "false"}
    (store.root / STAMP).unlink()
    assert (await store.build(context)).ran == []
    assert (await store.build(context)).ran == []
    assert not (store.root / STAMP).exists()
