"""What a daemon allows builds: how many steps at a time, how much cache, which privileges."""

from __future__ import annotations

from pathlib import Path

import pytest

from llb.definition import Definition
from llb.mounts import Cache
from llb.ops import NetMode
from llb.sources import image
from llb.state import merge
from tests.builds import FIXTURES, Store
from tests.fakes import leftovers
from tests.fakes.daemon import daemon, grpc

pytest_plugins = [FIXTURES]

# Whoever finds somebody else at it says so.
ALONE = "mkdir /shared/at-it || exit 9; sleep 0.2; rmdir /shared/at-it"


def step(script: str, network: NetMode | None = None) -> Definition:
    return image("base").run(script, name="step", network=network).root.marshal()


def alone(number: int) -> Definition:
    shared = Cache(target="/shared", id="shared")
    return image("base").run(f"{ALONE}; : {number}", name="step", mounts=[shared]).root.marshal()


def test_steps_of_all_builds_wait_for_each_other(store: Store, tmp_path: Path) -> None:
    config = tmp_path / "d.toml"
    config.write_text("[worker.oci]\nmax-parallelism = 1\n")
    with daemon(store.root, tmp_path, "--config", config) as started, started.client() as client:
        building = [client.begin(alone(number)) for number in range(6)]
        for each in building:
            each.result(timeout=60)


def test_what_the_client_did_not_grant_no_step_has(store: Store, tmp_path: Path) -> None:
    """The daemon allows it, and that is not enough."""
    flags = ("--allow-insecure-entitlement", "network.host")
    with daemon(store.root, tmp_path, *flags) as started, started.client() as client:
        with pytest.raises(grpc.RpcError, match=r"network\.host is not allowed"):
            client.solve(step("true", NetMode.HOST))
        client.solve(step("true", NetMode.HOST), Entitlements=["network.host"])


def test_the_cache_of_an_earlier_daemon_is_made_smaller(store: Store, tmp_path: Path) -> None:
    """By rules of buildkitd.toml: the newest that `keepBytes` holds stays."""
    with daemon(store.root, tmp_path) as started, started.client() as client:
        for number in range(4):
            client.solve(step(f"head -c 10000000 /dev/urandom > /big; : {number}"))
        before = sum(record.Size for record in client.usage())
    (store.root / "collected").unlink(missing_ok=True)  # it was a minute ago
    config = tmp_path / "d.toml"
    config.write_text("[worker.oci]\ngc = true\n[[worker.oci.gcpolicy]]\nkeepBytes = 25000000\nall = true\n")
    flags = ("--oci-worker-gc=true", "--config", config)
    with daemon(store.root, tmp_path, *flags) as started, started.client() as client:
        assert before > 40_000_000
        assert leftovers.until(lambda: sum(record.Size for record in client.usage()) < 25_000_000)


def test_more_steps_at_a_time_than_the_soft_limit_has_files(store: Store, tmp_path: Path) -> None:
    """All wait until all are there. What a step may open is what the daemon was given."""
    count, shared = 60, Cache(target="/shared", id="all")
    wait = f"until [ $(ls /shared | wc -l) = {count} ]; do sleep 0.2; done"
    steps = [
        image("base").run(f"touch /shared/{number}; {wait}; test $(ulimit -n) = 200", mounts=[shared]).root
        for number in range(count)
    ]
    prefix = ("prlimit", "--nofile=200:20000")
    with daemon(store.root, tmp_path, prefix=prefix) as started, started.client() as client:
        client.begin(merge(steps).marshal()).result(timeout=120)
