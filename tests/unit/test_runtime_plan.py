"""From a spec to what is done: pure, so every order, message and refusal is checked without a namespace."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildengine.errors import HostError, InternalError, UserError
from cache.overlay import TreeMount
from worker.runtime import actions, bundle, devices, failures, request, usual
from worker.runtime.operations import Filesystem
from worker.runtime.plan import plan
from worker.runtime.spec import (
    BindMount,
    ProcessSpec,
    Rlimit,
    SecretFile,
    StepLimits,
    TmpfsMount,
    TreeMountPoint,
    from_json,
)
from worker.session import SecretBytes

ROOT = TreeMount(lowers=("/l2", "/l1"), upper="/u", work="/w")


def step(**fields: Any) -> ProcessSpec:
    return ProcessSpec(**{"id": "s", "argv": ("/bin/true",), "root": ROOT} | fields)


FULL = step(
    env=("A=1",),
    secret_env=("T",),
    cwd="/src",
    uid=1,
    gid=2,
    groups=(3,),
    readonly_root=True,
    mounts=(
        TreeMountPoint(target="/src", tree=TreeMount(lowers=("/l",)), selector="a", readonly=False),
        BindMount(target="/cache", source="/c", readonly=True),
        TmpfsMount(target="/tmp", size=5, mode=0o700, options=("noexec",)),
        SecretFile(target="/s", uid=1, gid=2, mode=0o440),
    ),
    files={"/etc/hosts": b"\xff\0"},
    hostname="h",
    network="none",
    rlimits=(Rlimit(name="nofile", soft=1, hard=-1),),
    limits=StepLimits(memory=1, cpus=1.5, pids=3),
    cgroup_parent="p",
)


@pytest.mark.parametrize("value", [step(), FULL])
def test_specs_survive_json(value: ProcessSpec) -> None:
    assert from_json(json.loads(json.dumps(value.to_json()))) == value


def targets(made: ProcessSpec, **options: Any) -> list[str]:
    operations = plan(made, {"/s": SecretBytes(b"x")}, **options)
    return [operation.target for operation in operations if hasattr(operation, "target")]


def test_parents_are_mounted_before_children_and_the_users_instead_of_ours() -> None:
    mounts = (
        TmpfsMount(target="/a/b"),
        TmpfsMount(target="/a-b"),
        TmpfsMount(target="a"),
        TmpfsMount(target="/dev/shm", size=7),
        TmpfsMount(target="/a//b/../c/"),
    )
    order = targets(step(mounts=mounts))
    assert [target for target in order if target.startswith("/a")] == ["/a", "/a/b", "/a/c", "/a-b"]
    assert order.index("/dev") < order.index("/dev/pts") < order.index("/proc") < order.index("/sys/fs/cgroup")
    sizes = [
        dict(o.options).get("size")
        for o in plan(step(mounts=mounts), {})
        if isinstance(o, Filesystem) and o.target == "/dev/shm"
    ]
    assert sizes == ["7"]


def test_frame_of_the_plan() -> None:
    assert [o.kind for o in plan(FULL, {"/s": SecretBytes(b"x")})][:3] == ["root", "hostname", "network"]
    assert [o.kind for o in plan(FULL, {"/s": SecretBytes(b"x")})][-4:] == [
        "mask",
        "freeze",
        "workdir",
        "readonly_root",
    ]
    insecure = [o.kind for o in plan(step(insecure=True), {})]
    assert "mask" not in insecure
    oci = [o.kind for o in plan(FULL, {"/s": SecretBytes(b"x")}, oci=True)]
    assert not {"mask", "freeze", "network", "hostname", "cgroup", "readonly_root"} & set(oci)
    assert oci.count("mountpoint") == 2


def test_every_operation_can_be_described_and_executed() -> None:
    for made in (FULL, step(insecure=True)):
        for oci in (False, True):
            for operation in plan(made, {"/s": SecretBytes(b"hunter2")}, oci=oci):
                kind, description, fields = operation.wire()
                names = actions.EXECUTE[kind].__code__.co_varnames[1 : actions.EXECUTE[kind].__code__.co_argcount]
                assert set(names) == set(fields), kind
                assert description
                assert "hunter2" not in description + repr(operation)


def test_what_is_made_ahead_is_what_a_plain_step_wants() -> None:
    """Else it would be made in vain, and again."""
    wanted = [
        (operation.fstype, operation.options, operation.attributes)
        for operation in plan(step(), {})
        if isinstance(operation, Filesystem)
    ]
    made = [
        arguments
        for function, arguments in usual.makings([], oci=False, mknod=True)
        if function.__name__ == "new_filesystem"
    ]
    assert sorted(wanted) == sorted(made)


@given(st.lists(st.sampled_from(["", ".", "..", "proc", "sys", "a", "~ "]), max_size=6).map("/".join))
def test_no_target_reaches_proc_or_sys(path: str) -> None:
    try:
        found = targets(step(mounts=(TmpfsMount(target=path),)))
    except UserError:
        return
    for target in found:
        assert target == "/" or "//" not in target
        assert ".." not in target.split("/")
    assert all(target.split("/")[1] not in ("proc", "sys") for target in found if target not in targets(step()))


def test_too_many_layers() -> None:
    many = TreeMount(lowers=("/x",) * 501)
    with pytest.raises(HostError, match="501 layers"):
        plan(step(root=many), {})
    with pytest.raises(HostError, match="501 layers"):
        plan(step(mounts=(TreeMountPoint(target="/x", tree=many),)), {})


# --- requests ---------------------------------------------------------------------------------------------


def built(made: ProcessSpec, **options: Any) -> dict[str, Any]:
    secrets = {"/s": SecretBytes(b"file"), "T": SecretBytes(b"tok\xff")}
    return request.build(made, secrets, group="pybuild-1-2-3-4", **options)


def test_request() -> None:
    content = built(FULL)
    assert content["process"]["env"] == {"A": "1", "T": "tok\udcff"}
    assert content["process"]["rlimits"] == [(7, 1, -1)]
    assert content["cgroup"] == {
        "parent": "p",
        "memory": 1,
        "cpus": 1.5,
        "pids": 3,
        "needed": True,
        "devices": devices.DEFAULT,
    }
    assert content["oci"] is None
    assert built(step(insecure=True))["process"]["seccomp"] == b""
    assert built(step(insecure=True))["cgroup"]["devices"] == devices.EVERYTHING


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"argv": ()}, "no command"),
        ({"argv": ("a\0b",)}, "NUL"),
        ({"env": ("A=\0",)}, "NUL"),
        ({"cwd": "src"}, "not absolute"),
        ({"hostname": "h" * 65}, "longer than 64"),
        ({"uid": -1}, "no user or group id"),
        ({"groups": (2**32 - 1,)}, "no user or group id"),
        ({"rlimits": (Rlimit(name="nofiles", soft=1, hard=1),)}, "unknown ulimit"),
        ({"rlimits": (Rlimit(name="nofile", soft=2, hard=1),)}, "above the hard limit"),
        ({"rlimits": (Rlimit(name="nofile", soft=-1, hard=1),)}, "above the hard limit"),
        ({"cgroup_parent": "a/../../b"}, "leaves its hierarchy"),
        ({"mounts": (TmpfsMount(target="/a\0b"),)}, "cannot mount anything"),
    ],
)
def test_refusals(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        built(step(**fields))


def test_secret_for_the_environment_with_a_nul() -> None:
    with pytest.raises(UserError, match="NUL"):
        request.build(step(secret_env=("T",)), {"T": SecretBytes(b"a\0b")}, group="g")


def test_oci_config() -> None:
    config = json.loads(built(FULL, oci=bundle.Program(name="crun", path="/usr/bin/crun"))["oci"]["config"])
    assert config["process"]["user"] == {"uid": 1, "gid": 2, "additionalGids": [3], "umask": 0o022}
    assert config["process"]["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2**64 - 1}]
    assert config["root"]["readonly"]
    assert {"type": "network"} in config["linux"]["namespaces"]
    assert config["linux"]["cgroupsPath"] == "pybuild-1-2-3-4"
    assert "CAP_SYS_ADMIN" not in config["process"]["capabilities"]["bounding"]
    assert set(config["process"]["capabilities"]) == {"bounding", "effective", "permitted"}
    loose = bundle.config(step(insecure=True), {}, "g")
    assert "seccomp" not in loose["linux"]
    assert "maskedPaths" not in loose["linux"]


# --- failures, files, imports -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        ({"fault": "user", "message": "m"}, UserError, "^m$"),
        ({"fault": "host", "message": "m: Operation not permitted"}, HostError, "not permitted"),
        ({"fault": "internal", "message": "m", "trace": "f:1"}, InternalError, "m"),
        ({"fault": "oci", "message": ""}, HostError, "without a message"),
        ({"fault": "oci", "message": 'x\n{"level":"error","msg":"mount: no"}\n[]\n'}, HostError, "mount: no"),
        ({"fault": "oci", "message": '{"level":"error","msg":"exec: \\"x\\": not found"}'}, UserError, "not found"),
    ],
)
def test_failures(failure: dict[str, str], kind: type[Exception], message: str) -> None:
    error = failures.error(failure)
    assert type(error) is kind
    with pytest.raises(kind, match=message):
        raise error


def test_the_launcher_imports_little_and_only_the_standard_library() -> None:
    """Its size is every step's fork, and what it lacks at its start it can never import."""
    root = str(Path(__file__).parents[2])
    script = (
        f"import sys; sys.path.append({root!r}); before = set(sys.modules); import worker.runtime.launcher;"
        "print(*sorted(set(sys.modules) - before))"
    )
    out = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    loaded = set(out.stdout.split())
    assert len([name for name in loaded if not name.startswith("worker")]) < 25
    assert not loaded & {
        "re",
        "enum",
        "typing",
        "dataclasses",
        "json",
        "socket",
        "subprocess",
        "traceback",
        "collections",
    }
    assert {name for name in loaded if name.startswith(("buildengine.", "cache", "trio"))} <= {
        "buildengine.tracepoints"
    }
