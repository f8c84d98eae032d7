"""buildkitd's flags and its file, and what they come to here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from buildengine.config import Space
from buildengine.daemon import daemonconfig, flags
from buildengine.daemon.daemonconfig import DaemonConfig
from buildengine.errors import ConfigError


def load(tmp_path: Path, *words: str, file: str = "") -> DaemonConfig:
    """With a file of buildkitd's, and none of pybuild's."""
    path, ours = tmp_path / "buildkitd.toml", tmp_path / "pybuild.toml"
    path.write_text(file)
    ours.write_text("[worker]\nstep-pids = 7\n")
    environ = {"PYBUILD_CONFIG": str(ours), "HOME": str(tmp_path)}
    return daemonconfig.load(flags.parse(["--config", str(path), *words]), environ=environ)


@pytest.mark.parametrize(
    "words",
    [
        ["--root", "/a", "--debug", "--addr", "unix:///x", "--addr", "tcp://:1"],
        ["--root=/a", "--debug=true", "--addr=unix:///x", "--addr=tcp://:1"],
        ["-root=/a", "-debug", "-addr=unix:///x", "-addr", "tcp://:1"],
    ],
)
def test_the_syntax_of_go(words: list[str]) -> None:
    values = flags.parse(words).values
    assert values["root"] == "/a"
    assert values["debug"] in (True, "true")
    assert values["grpc"] == {"address": ["unix:///x", "tcp://:1"]}


def test_flags_win_over_the_file_and_the_file_over_ours(tmp_path: Path) -> None:
    file = 'root = "/file"\n[grpc]\naddress = ["unix:///file"]\n[worker.oci]\nmax-parallelism = 3\n'
    config = load(tmp_path, "--root", "/flag", file=file)
    assert (config.engine.root, config.addresses) == (Path("/flag"), ("unix:///file",))
    assert (config.engine.worker.max_parallelism, config.engine.worker.step_pids) == (3, 7)
    assert load(tmp_path).addresses == ("unix:///run/buildkit/buildkitd.sock",)


def test_what_the_file_says(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        file="""debug = true
insecure-entitlements = ["network.host", "security.insecure"]
provenanceEnvDir = "/etc/p"
[log]
format = "json"
[grpc]
uid = 1
gid = 2
[grpc.tls]
cert = "/c"
key = "/k"
ca = "/a"
[history]
maxAge = "2h"
maxEntries = 5
[frontend."dockerfile.v0"]
enabled = false
[frontend."gateway.v0"]
enabled = true
allowedRepositories = ["docker.io/docker/dockerfile"]
[dns]
nameservers = ["1.1.1.1"]
[registry."docker.io"]
mirrors = ["localhost:5000"]
[worker.oci]
snapshotter = "native"
binary = "buildkit-runc"
platforms = ["linux/arm64"]
[worker.oci.labels]
a = "b"
""",
    )
    assert (config.engine.debug, config.entitlements) == (True, {"network.host", "security.insecure"})
    assert (config.uid, config.gid, config.log_format) == (1, 2, "json")
    assert (config.tls_certificate, config.tls_key, config.tls_authority) == (Path("/c"), Path("/k"), Path("/a"))
    assert (config.history_max_age, config.history_max_entries) == (7200.0, 5)
    assert not config.engine.frontends["dockerfile.v0"].enabled
    assert config.engine.frontends["gateway.v0"].allowed_repositories == ("docker.io/docker/dockerfile",)
    assert config.warnings == ()
    assert config.engine.dns.nameservers == ("1.1.1.1",)
    assert config.engine.registries["docker.io"].mirrors == ("localhost:5000",)
    worker = config.engine.worker
    assert (worker.snapshotter, worker.runtime, worker.platforms) == ("copy", "runc", ("linux/arm64",))
    assert (dict(worker.labels), config.provenance_env) == ({"a": "b"}, Path("/etc/p"))


def test_garbage_collection(tmp_path: Path) -> None:
    file = """[worker.oci]
reservedSpace = "1GB"
[[worker.oci.gcpolicy]]
keepBytes = 500
keepDuration = 3600
filters = ["type==source.local"]
[[worker.oci.gcpolicy]]
all = true
maxUsedSpace = "10%"
"""
    worker = load(tmp_path, file=file).engine.worker
    first, second = worker.gc_policies
    assert (first.reserved_space, first.keep_duration, first.filters) == (
        Space(bytes=500),
        3600,
        ("type==source.local",),
    )
    assert (second.all, second.max_used_space) == (True, Space(percent=10))
    assert worker.reserved_space == Space(bytes=2**30)
    worker = load(tmp_path, "--oci-worker-gc-keepstorage", "100,20%,5000", "--oci-worker-gc=false").engine.worker
    spaces = (worker.reserved_space, worker.min_free_space, worker.max_used_space)
    assert (worker.gc, spaces) == (False, (Space(bytes=10**8), Space(percent=20), Space(bytes=5 * 10**9)))


def test_labels(tmp_path: Path) -> None:
    words = ("--oci-worker-labels", "a=1,b=2", "--oci-worker-labels=c=x=y")
    assert dict(load(tmp_path, *words).engine.worker.labels) == {"a": "1", "b": "2", "c": "x=y"}


@pytest.mark.parametrize(
    ("words", "file", "said", "hint"),
    [
        (["--oci-worker-labels", "a"], "", "--oci-worker-labels must be NAME=VALUE", None),
        (["--group", "no such group"], "", "--group must be a group of this host", None),
        (["--debug=maybe"], "", "command line: debug must be true or false", None),
        (["--oci-worker-snapshotter", "stargz"], "", "there is no snapshotter 'stargz'", "overlayfs, native"),
        (["--oci-worker-binary", "kata"], "", "'kata' cannot be used", "runc or crun"),
        (["--oci-worker-no-process-sandbox"], "", "noProcessSandbox is not supported", None),
        (["--rootless"], "", "rootless is not supported", None),
        (["--log-format", "xml"], "", "log.format must be text or json", None),
        ([], "[worker.oci]\nmaxparallelism = 1\n", "worker.oci.maxparallelism is not a known key", "max-parallelism"),
        ([], "[worker.oci]\nselinux = true\n", "selinux is not supported", None),
        ([], '[worker.oci]\napparmor-profile = "x"\n', "apparmor-profile is not supported", None),
        ([], "[worker.containerd]\nenabled = true\n", "there is no containerd worker", "--containerd-worker=false"),
    ],
)
def test_what_cannot_be(tmp_path: Path, words: list[str], file: str, said: str, hint: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, *words, file=file)
    assert said in caught.value.message
    assert hint is None or hint in (caught.value.hint or "")


def test_what_is_not_heeded_is_said(tmp_path: Path) -> None:
    config = load(tmp_path, "--oci-worker-net", "bridge", "--debugaddr", "0.0.0.0:6060")
    assert [warning.partition(" ")[0] for warning in config.warnings] == ["networkMode", "there"]
    assert load(tmp_path, "--oci-worker=true", "--containerd-worker=false", "--save-cache-debug").warnings == ()


def test_a_file_that_is_not_there_is_none() -> None:
    assert daemonconfig.load(flags.parse(["--config", "/nowhere.toml"]), environ={"HOME": "/nowhere"}).addresses


def test_help_names_every_flag_with_a_meaning() -> None:
    shown: Any = flags.usage()
    assert all(f"--{name} " in shown for name, flag in flags.FLAGS.items() if flag.usage)
