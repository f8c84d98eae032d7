"""How pybuildd begins and ends: sockets, TLS, systemd, signals, and what a killed one leaves to the next."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

import pytest

from buildengine.api import control_pb2 as pb
from llb.definition import Definition
from llb.sources import image
from llb.state import mkdir, scratch
from tests.builds import FIXTURES, Store
from tests.fakes import leftovers
from tests.fakes.daemon import HARNESS, PATIENCE, PYBUILDD, Client, daemon, grpc
from tests.integration.test_registry_docker import certificate

pytest_plugins = [FIXTURES]

SHUT_DOWN = 10.0  # seconds that a daemon may take to end


def files(name: str) -> Definition:
    return scratch().file(mkdir("/srv").mkfile("/srv/it", name.encode()), name=f"write {name}").marshal()


def sleeping(marker: str) -> Definition:
    """A step that says `running` and would go on for long; its processes bear the marker."""
    script = f"(sleep 1000 & sleep 1000) & trap '' TERM HUP INT; echo running; MARKER={marker} sleep 1000"
    return image("base").run(script, name="sleep", env={"MARKER": marker}).root.marshal()


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    argv = [str(word) for word in (PYBUILDD, *arguments)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PATIENCE)


# --- beginning ---------------------------------------------------------------------------------------------------


def test_the_version_as_buildx_reads_it() -> None:
    done = run("--version")
    name, package, version, revision = done.stdout.split()  # driver/docker-container: four words, the third counts
    assert (done.returncode, name, package) == (0, "pybuildd", "pybuild")
    assert re.fullmatch(r"v\d+\.\d+\.\d+\+pybuild\..+", version)
    assert revision


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--adr", "unix:///x"], 2, "did you mean --addr?"),
        (["--root"], 2, "--root needs a value"),
        (["serve"], 2, "unexpected argument 'serve'"),
        (["--addr", "/run/x.sock"], 1, "you meant unix:///run/x.sock ?"),
        (["--addr", "npipe:////./pipe/x"], 1, "the schemes are unix, tcp, fd"),
        (["--containerd-worker=true"], 1, "there is no containerd worker"),
        (["--oci-worker=false"], 1, "worker.oci.enabled = false is not supported"),
        (["--allow-insecure-entitlement", "device"], 1, "invalid entitlement : device"),
        (["--tlscert", "x.pem"], 1, "TLS needs both"),
        (["--addr", "fd://"], 1, "no socket was passed to us"),
    ],
)
def test_wrong_flags(tmp_path: Path, arguments: list[str], status: int, said: str) -> None:
    done = run(*([] if arguments[0] == "--root" else ["--root", tmp_path / "root"]), *arguments)
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr


def test_a_wrong_file(tmp_path: Path) -> None:
    (tmp_path / "d.toml").write_text("debug = true\n[worker.oci]\nmax-paralelism = 2\n")
    done = run("--root", tmp_path / "root", "--config", tmp_path / "d.toml")
    assert done.returncode == 1
    assert f"{tmp_path}/d.toml: worker.oci.max-paralelism is not a known key" in done.stderr
    assert "did you mean max-parallelism?" in done.stderr


def test_the_socket_is_for_its_group(tmp_path: Path) -> None:
    with daemon(tmp_path / "root", tmp_path, "--group", "12345"):
        found = (tmp_path / "d.sock").stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o660, 0, 12345)
    assert not (tmp_path / "d.sock").exists()


def test_one_daemon_for_a_store_and_a_socket(tmp_path: Path) -> None:
    with daemon(tmp_path / "root", tmp_path):
        done = run("--root", tmp_path / "root", "--addr", f"unix://{tmp_path}/other.sock")
        assert (done.returncode, "another pybuildd serves" in done.stderr) == (3, True)
        done = run("--root", tmp_path / "other", "--addr", f"unix://{tmp_path}/d.sock")
        assert (done.returncode, "another process serves" in done.stderr) == (3, True)
        assert (tmp_path / "d.sock").is_socket()


def test_what_the_harness_configures(tmp_path: Path) -> None:
    """The fragments that BuildKit's own integration tests write."""
    (tmp_path / "d.toml").write_text(
        f"""insecure-entitlements = ["security.insecure"]
provenanceEnvDir = "{tmp_path}/provenance.d"
[registry."docker.io"]
mirrors=["localhost:5001"]
[otel]
  socketPath = "{tmp_path}/otel.sock"
[cdi]
  specDirs = ["{tmp_path}/cdi"]
[worker.oci]
  max-parallelism = 1
  networkMode = "cni"
  cniConfigPath = "/etc/buildkit/dns-cni.conflist"
[worker.containerd]
  max-parallelism = 1
[dns]
  nameservers = ["10.11.0.1"]
"""
    )
    with daemon(tmp_path / "root", tmp_path, "--config", tmp_path / "d.toml") as started, started.client() as client:
        client.solve(files("configured"), Entitlements=["security.insecure"])
        assert "networkMode cni is not supported" in started.log
        with pytest.raises(grpc.RpcError, match=r"granting entitlement network\.host is not allowed"):
            client.solve(files("configured"), Entitlements=["network.host"])


# --- TCP, TLS, systemd -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    certificate(directory, "ca")
    for name in ("server", "client"):
        certificate(directory, name, signer=str(directory / "ca"))
    certificate(directory, "stranger")
    return directory


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_tls_is_mutual(tmp_path: Path, keys: Path) -> None:
    port = free_port()
    tls = ("--tlscert", keys / "server.pem", "--tlskey", keys / "server.key", "--tlscacert", keys / "ca.pem")
    with daemon(tmp_path / "root", tmp_path, "--addr", f"tcp://127.0.0.1:{port}", *tls) as started:

        def info(name: str) -> str:
            pem = [(keys / each).read_bytes() for each in ("ca.pem", f"{name}.key", f"{name}.pem")]
            with grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(*pem)) as channel:
                answer = Client(channel).unary("Info", pb.InfoRequest(), pb.InfoResponse)
                return str(answer.buildkitVersion.package)

        assert info("client") == "pybuild"
        with pytest.raises(grpc.RpcError) as caught:
            info("stranger")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        with started.client() as local:  # a unix socket stays as it is
            local.unary("Info", pb.InfoRequest(), pb.InfoResponse)


def test_started_by_systemd(tmp_path: Path) -> None:
    """The socket comes from outside, and outside is told when it is ready and when it ends."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening,
    ):
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(PATIENCE)
        listening.bind(str(tmp_path / "given.sock"))
        listening.listen()
        script = f'exec 3<&{listening.fileno()}; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"'
        argv = ["bash", "-c", script, "bash", PYBUILDD, "--root", tmp_path / "root", "--addr", "fd://", *HARNESS]
        environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "NOTIFY_SOCKET": str(tmp_path / "notify")}
        process = subprocess.Popen(list(map(str, argv)), env=environment, pass_fds=[listening.fileno()])
        try:
            assert heard.recv(100) == b"READY=1"
            with grpc.insecure_channel(f"unix:{tmp_path}/given.sock") as channel:
                Client(channel).solve(files("activated"))
            process.terminate()
            assert heard.recv(100) == b"STOPPING=1"
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.wait()
    assert (tmp_path / "given.sock").is_socket()  # it is not ours to take away


# --- ending ------------------------------------------------------------------------------------------------------


def test_told_to_end_while_a_step_runs(store: Store, tmp_path: Path) -> None:
    marker = f"ending-{os.getpid()}"
    with leftovers.watch(tmp_path, marker=marker) as watch:
        with daemon(store.root, tmp_path, prefix=watch.enclosed([])) as started, started.client() as client:
            watch.engine(started.process.pid)
            building = client.begin(sleeping(marker), ref="ending")
            client.until_output("ending", "running")
            began = time.monotonic()
            assert started.stop() == 0
            assert time.monotonic() - began < SHUT_DOWN
            with pytest.raises(grpc.RpcError) as caught:
                building.result(timeout=PATIENCE)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "shutting down" in caught.value.details()
        assert watch.remaining() == []
    assert leftovers.files(store.root) == []


def test_a_killed_daemon_starts_again(store: Store, tmp_path: Path) -> None:
    marker = f"killed-{os.getpid()}"
    with leftovers.watch(tmp_path, marker=marker) as watch:
        with daemon(store.root, tmp_path, prefix=watch.enclosed([])) as started, started.client() as client:
            watch.engine(started.process.pid)
            client.solve(files("before"), ref="before")
            building = client.begin(sleeping(marker), ref="killed")
            client.until_output("killed", "running")
            started.stop(signal.SIGKILL)
            with pytest.raises(grpc.RpcError):
                building.result(timeout=PATIENCE)
        assert watch.remaining() == []
        with daemon(store.root, tmp_path) as again, again.client() as client:  # its socket was still there
            assert [event.record.Ref for event in client.history()] == ["before"]
            client.solve(files("before"), ref="after")
    assert leftovers.files(store.root) == []


def test_listeners_do_not_keep_it(tmp_path: Path) -> None:
    """Clients that only listen are let go at once."""
    with daemon(tmp_path / "root", tmp_path) as started, started.client() as client:
        events = client.stream("ListenBuildHistory", pb.BuildHistoryRequest(), pb.BuildHistoryEvent)
        events.initial_metadata()
        began = time.monotonic()
        assert started.stop() == 0
        assert time.monotonic() - began < SHUT_DOWN
        with pytest.raises(grpc.RpcError):
            next(events)
