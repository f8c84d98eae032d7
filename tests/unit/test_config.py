"""The configuration tree: every layer, every kind of value, and what a mistake in it looks like."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from buildengine import config, tracepoints
from buildengine.builder import PrunePolicy
from buildengine.config import Config, GcPolicy, KeyPair, RegistryConfig, Space, load
from buildengine.errors import ConfigError


@pytest.fixture(autouse=True)
def no_system_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "etc/pybuild.toml"
    monkeypatch.setattr(config, "SYSTEM_FILE", path)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def read(tmp_path: Path, text: str) -> Config:
    return load(file=write(tmp_path / "pybuild.toml", text), environ={})


def test_the_code_has_defaults_for_everything() -> None:
    found = load(environ={"HOME": "/home/me"})
    assert found.root == Path("/var/lib/pybuild")
    assert found.docker_config == Path("/home/me/.docker")
    assert (found.worker.step_pids, found.worker.step_memory, found.worker.runtime) == (32768, 0, "auto")
    assert dataclasses.replace(found, docker_config=Config().docker_config, environment={}) == Config()


def test_each_layer_wins_over_the_one_before(tmp_path: Path, no_system_file: Path) -> None:
    write(no_system_file, 'root = "/system"\n[worker]\nstep-pids = 1\nstep-cpus = 1\nruntime = "runc"\n')
    write(tmp_path / "xdg/pybuild/pybuild.toml", "[worker]\nstep-pids = 2\nstep-cpus = 2.5\n")
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "xdg"), "PYBUILD_WORKER_STEP_PIDS": "3", "PYBUILD_ROOT": "/env"}
    found = load(environ=environ, flags={"root": "/flag", "debug": None})
    assert found.root == Path("/flag")
    assert found.worker == dataclasses.replace(Config().worker, step_pids=3, step_cpus=2.5, runtime="runc")
    assert load(environ=environ).root == Path("/env")


def test_the_user_file_is_below_home_without_xdg(tmp_path: Path) -> None:
    write(tmp_path / ".config/pybuild/pybuild.toml", "debug = true\n")
    assert load(environ={"HOME": str(tmp_path)}).debug


def test_a_named_file_is_read_instead_of_the_usual_ones_and_must_exist(tmp_path: Path, no_system_file: Path) -> None:
    write(no_system_file, "debug = true\n")
    named = write(tmp_path / "mine.toml", "[worker]\nstep-pids = 7\n")
    for found in (load(file=named, environ={}), load(environ={"PYBUILD_CONFIG": str(named)})):
        assert (found.debug, found.worker.step_pids) == (False, 7)
    with pytest.raises(ConfigError, match=r"cannot read the configuration file .*absent.toml: No such file"):
        load(file=tmp_path / "absent.toml", environ={})


def test_every_kind_of_value(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
        root = "state"
        [worker]
        step-memory = "2GB"
        step-cpus = 1.5
        snapshotter = "copy"
        maxParallelism = 4          # buildkitd's spelling
        gc = false
        reservedSpace = "10%"
        [[worker.gcpolicy]]
        filters = ["type==exec.cachemount"]
        keepDuration = "48h"
        maxUsedSpace = "512MB"
        [[worker.gcpolicy]]
        all = true
        keepDuration = 60
        [registry."docker.io"]
        mirrors = ["mirror.example:5000", "other.example"]
        [registry."localhost:5000"]
        http = true
        insecure = true
        ca = ["certs/ca.pem", "/etc/ssl/own.pem"]
        [[registry."localhost:5000".keypair]]
        key = "k.pem"
        cert = "c.pem"
        [dns]
        nameservers = ["1.1.1.1"]
        searchDomains = ["example.com"]
        """,
    )
    assert found.root == tmp_path / "state"
    assert (found.worker.step_memory, found.worker.step_cpus) == (2 << 30, 1.5)
    assert (found.worker.snapshotter, found.worker.max_parallelism, found.worker.gc) == ("copy", 4, False)
    assert found.worker.reserved_space == Space(percent=10)
    assert found.worker.gc_policies == (
        GcPolicy(filters=("type==exec.cachemount",), keep_duration=172800.0, max_used_space=Space(bytes=512 << 20)),
        GcPolicy(all=True, keep_duration=60.0),
    )
    assert found.registries == {
        "docker.io": RegistryConfig(mirrors=("mirror.example:5000", "other.example")),
        "localhost:5000": RegistryConfig(
            http=True,
            insecure=True,
            ca=(tmp_path / "certs/ca.pem", Path("/etc/ssl/own.pem")),
            keypairs=(KeyPair(key=tmp_path / "k.pem", cert=tmp_path / "c.pem"),),
        ),
    }
    assert (found.dns.nameservers, found.dns.search_domains) == (("1.1.1.1",), ("example.com",))


def test_registries_of_two_files_are_merged_host_by_host(tmp_path: Path, no_system_file: Path) -> None:
    write(no_system_file, '[registry."a"]\nhttp = true\ninsecure = true\n[registry."b"]\nhttp = true\n')
    write(tmp_path / ".config/pybuild/pybuild.toml", '[registry."a"]\nhttp = false\n')
    found = load(environ={"HOME": str(tmp_path)}).registries
    assert found == {"a": RegistryConfig(http=False, insecure=True), "b": RegistryConfig(http=True)}


def test_variables_hold_the_same_values_as_text() -> None:
    found = load(
        environ={
            "PYBUILD_DEBUG": "yes",
            "PYBUILD_WORKER_STEP_MEMORY": "512m",
            "PYBUILD_WORKER_STEP_CPUS": "0.5",
            "PYBUILD_WORKER_GC": "false",
            "PYBUILD_WORKER_MIN_FREE_SPACE": "20%",
            "PYBUILD_DNS_NAMESERVERS": "1.1.1.1, 8.8.8.8",
            "PYBUILD_HISTORY_MAX_AGE": "2d",
            "PYBUILD_NAME": "not ours: dh-python's",
            "PYBUILD_ROOT": "",
            "DOCKER_CONFIG": "/docker",
        }
    )
    assert (found.debug, found.worker.step_memory, found.worker.step_cpus) == (True, 512 << 20, 0.5)
    assert (found.worker.gc, found.worker.min_free_space) == (False, Space(percent=20))
    assert found.dns.nameservers == ("1.1.1.1", "8.8.8.8")
    assert (found.root, found.docker_config) == (Path("/var/lib/pybuild"), Path("/docker"))
    assert found.environment["PYBUILD_DEBUG"] == "yes"
    assert "PYBUILD_DEBUG" not in repr(found)


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ("debug = 1\n", 1, "debug must be true or false, not 1", None),
        ("\nrot = 'x'\n", 2, "rot is not a known key", "did you mean root?"),
        ("[worker]\nstep-memroy = 1\n", 2, "worker.step-memroy is not a known key", "did you mean step-memory?"),
        ("[worker]\nstepPid = 1\n", 2, "worker.stepPid is not a known key", "did you mean stepPids?"),
        (
            "[zzz]\na = 1\n",
            1,
            "zzz is not a known key",
            "the keys here are root, debug, worker, registry, frontend, dns",
        ),
        ("worker = 3\n", 1, "worker must be a table: [worker]", None),
        ("[worker]\n\n# c\nstep-memory = 'lots'\n", 4, "worker.step-memory has an invalid size 'lots'", "a size is"),
        ("[worker]\nstep-pids = -1\n", 2, "worker.step-pids must be a whole number, 0 or more, not -1", None),
        ("[worker]\nstep-pids = 1.5\n", 2, "worker.step-pids must be a whole number, 0 or more, not 1.5", None),
        ("[worker]\nstep-cpus = true\n", 2, "worker.step-cpus must be a number, 0 or more, not True", None),
        ("[worker]\nruntime = 'docker'\n", 2, "worker.runtime must be auto, builtin, runc or crun, not 'docker'", None),
        ("[worker]\nruntime = ['runc']\n", 2, "worker.runtime must be auto, builtin, runc or crun", None),
        ("[worker]\nmaxUsedSpace = '101%'\n", 2, "worker.maxUsedSpace must be at most 100%", None),
        ("[worker]\nstep-pids = 1\nstepPids = 2\n", 3, "worker.stepPids is given twice, in two spellings", None),
        ("worker.step-pids = 'x'\n", 1, "worker.step-pids must be a whole number", None),
        ("[worker]\ngcpolicy = 1\n", 2, "worker.gcpolicy must be an array of tables: [[worker.gcpolicy]]", None),
        ("[[worker.gcpolicy]]\nal = true\n", 2, "worker.gcpolicy.al is not a known key", "did you mean all?"),
        (
            "[[worker.gcpolicy]]\nkeepDuration = 'soon'\n",
            2,
            "worker.gcpolicy.keepDuration has an invalid duration",
            "90s",
        ),
        ("[registry]\n'a.io' = 1\n", 2, 'registry.a.io must be a table: [registry."a.io"]', None),
        ('[registry."a.io"]\nhttps = true\n', 2, "registry.a.io.https is not a known key", "did you mean http?"),
        ('[registry."a.io"]\nmirrors = [1]\n', 2, "registry.a.io.mirrors must be a list of strings, not [1]", None),
        ('[[registry."a.io".keypair]]\nkey = "k"\n', 1, "registry.a.io.keypair lacks the key cert", None),
        ("root = ''\n", 1, "root must be a path, not ''", None),
        ("a = \n", 1, "is not TOML: invalid value", None),
        ("[worker\n", 1, "is not TOML", None),
    ],
)
def test_a_mistake_in_a_file_names_the_file_the_line_and_the_way_out(
    tmp_path: Path, text: str, line: int, message: str, hint: str | None
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    error = caught.value
    assert message in error.message
    assert str(tmp_path / "pybuild.toml") in error.message
    assert (hint or "") in (error.hint or "")
    assert error.locations[0].ranges[0].start_line == line
    assert error.locations[0].text.decode() == text


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "pybuild.toml"
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load(file=path, environ={})


def test_a_mistake_in_a_variable_names_it() -> None:
    with pytest.raises(ConfigError, match=r"environment: PYBUILD_WORKER_STEP_PIDS must be a whole number.*not 'x'"):
        load(environ={"PYBUILD_WORKER_STEP_PIDS": "x"})


def test_a_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigError, match="the current directory no longer exists"):
        load(environ={})


def test_trace_points_are_armed_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    armed: dict[str, int] = {}
    monkeypatch.setattr(tracepoints, "_armed", armed)
    load(environ={"PYBUILD_TRACEPOINT": "blob.renamed"})
    load(environ={"PYBUILD_TRACEPOINT": "record.saved:3"})
    assert armed == {"blob.renamed": 1, "record.saved": 3}
    for wrong in ("x:0", "x:y", ":1"):
        with pytest.raises(ConfigError, match="PYBUILD_TRACEPOINT must be name"):
            load(environ={"PYBUILD_TRACEPOINT": wrong})


def test_garbage_collection_by_default_as_buildkit() -> None:
    policies = Config().worker.prune_policies(1000 * 10**9)
    assert [policy.keep_duration for policy in policies] == [172800.0, 5184000.0, 0.0, 0.0]
    assert [policy.all for policy in policies] == [False, False, False, True]
    assert policies[0].max_used_space == 512 * 10**6
    assert policies[1:3] == (
        PrunePolicy(
            keep_duration=5184000.0,
            reserved_space=10 * 10**9,
            max_used_space=100 * 10**9,
            min_free_space=200 * 10**9,
        ),
        PrunePolicy(reserved_space=10 * 10**9, max_used_space=100 * 10**9, min_free_space=200 * 10**9),
    )
    small = Config().worker.prune_policies(50 * 10**9)[3]
    assert (small.reserved_space, small.max_used_space, small.min_free_space) == (5 * 10**9, 40 * 10**9, 10 * 10**9)


def test_garbage_collection_as_told(tmp_path: Path) -> None:
    limited = read(tmp_path, "[worker]\nmax-used-space = '5GB'\n").worker.prune_policies(10**12)
    assert [policy.max_used_space for policy in limited[1:]] == [5 << 30] * 3
    assert [policy.min_free_space for policy in limited[1:]] == [0] * 3
    own = read(tmp_path, "[[worker.gcpolicy]]\nall = true\nreserved-space = '50%'\n").worker
    assert own.prune_policies(1000) == (PrunePolicy(all=True, reserved_space=500),)
    assert read(tmp_path, "[worker]\ngc = false\n").worker.prune_policies(1000) == ()
