"""Frontends that are images: what they are told, what becomes of those that misbehave, and who may be run at all."""

from __future__ import annotations

import base64
import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from buildengine.builder import BuildRequest
from buildengine.daemon.catalog import Catalog
from buildengine.daemon.local_session import DockerConfigCredentials, local_session
from buildengine.errors import BuildError, ExecFailed, Unsupported, UserError
from buildengine.events import discard
from frontends.gateway import FrontendRequest, FrontendResult, Gateway
from llb.definition import Definition
from llb.inspect import documents
from llb.state import mkfile, scratch
from tests.builds import FIXTURES, Built, Store, write
from tests.fakes import leftovers

pytest_plugins = [FIXTURES]

FRONTEND = "made/frontend:1"


async def make(store: Store, work: Path, script: str, *lines: str) -> None:
    """An image of the store whose entrypoint is a shell script."""
    dockerfile = "\n".join(["FROM base", "COPY --chmod=755 run /frontend", 'ENTRYPOINT ["/frontend"]', *lines, ""])
    context = write(work / "frontend", {"Dockerfile": dockerfile, "run": f"#!/bin/sh\n{script}\n"})
    await store.build(context, "-t", FRONTEND)


def written_for(work: Path, syntax: str = FRONTEND) -> Path:
    return write(work / "context", {"Dockerfile": f"# syntax={syntax} --level 9\nNOT A DOCKERFILE\n"})


async def refused(store: Store, context: Path, *flags: str) -> Built:
    return await store.build(context, *flags, status=1)


# --- what they are told --------------------------------------------------------------------------------------------

TELLS = """\
env | grep BUILDKIT_ >&2
echo "user=$(id -u)" >&2
echo "cwd=$(pwd)" >&2
echo "name=$NAME" >&2
echo "interfaces=$(echo /sys/class/net/*)" >&2
echo "frontend=$(base64 /run/config/buildkit/metadata/frontend.bin | tr -d '\\n')" >&2
exit 7"""


async def told(store: Store, context: Path, *flags: str) -> dict[str, str]:
    """What the script has printed, by name. The options of the build are there by theirs."""
    output = (await refused(store, context, *flags)).step(f"frontend {FRONTEND}").output
    found = dict(line.split("=", 1) for line in output.splitlines())
    options = [value for name, value in found.items() if name.startswith("BUILDKIT_FRONTEND_OPT_")]
    return found | dict(option.split("=", 1) for option in options)


async def test_what_a_frontend_is_told(store: Store, tmp_path: Path) -> None:
    await make(store, tmp_path, TELLS, "ENV NAME=ours", "WORKDIR /somewhere", "USER 1234")
    context = written_for(tmp_path)
    flags = ("--build-arg", "A=1", "--target", "t", "--platform", "linux/arm64", "--label", "l=x=y")
    got = await told(store, context, *flags)
    assert (
        got.items()
        >= {
            "build-arg:A": "1",
            "label:l": "x=y",
            "target": "t",
            "platform": "linux/arm64",
            "source": FRONTEND,
            "cmdline": f"{FRONTEND} --level 9",
            "name": "ours",
            "cwd": "/somewhere",
            "user": "0",  # BuildKit does not heed USER: frontends rely on that
            "BUILDKIT_EXPORTEDPRODUCT": "pybuild",
        }.items()
    )
    assert got.keys() >= {"BUILDKIT_SESSION_ID"}
    (worker,) = json.loads(got["BUILDKIT_WORKERS"])
    assert worker["id"]
    assert {"architecture": "amd64", "os": "linux"}.items() <= worker["platforms"][0].items()
    (source, _) = documents(Definition.from_bytes(base64.b64decode(got["frontend"])))
    assert source["Op"]["Op"]["source"]["identifier"].startswith(f"docker-image://docker.io/{FRONTEND}@sha256:")
    assert source["Op"]["Op"]["source"]["attrs"] == {"image.recordtype": "frontend"}


async def test_a_named_context_stands_for_the_image(store: Store, tmp_path: Path) -> None:
    """Even for the language that is built in; what is told of the source is what was written."""
    await make(store, tmp_path, TELLS)
    context = written_for(tmp_path, "docker/dockerfile:1")
    flags = ("--build-context", f"docker/dockerfile:1=docker-image://{FRONTEND}")
    built = await refused(store, context, *flags)
    assert "=source=docker/dockerfile:1\n" in built.step("frontend docker/dockerfile:1").output


async def test_a_frontend_without_a_network(store: Store, tmp_path: Path) -> None:
    await make(store, tmp_path, TELLS, "LABEL moby.buildkit.frontend.network.none=true")
    assert (await told(store, written_for(tmp_path)))["interfaces"] == "/sys/class/net/lo"


# --- those that misbehave ------------------------------------------------------------------------------------------


class Bad(NamedTuple):
    """`script` is the frontend; `said` stands in the error, `shown` in its output."""

    script: str
    said: str
    shown: str = ""


CLOSED = "frontend grpc server closed unexpectedly"
MISBEHAVIOUR = {
    "fails": Bad("echo oh dear >&2; exit 3", "exit code: 3", "oh dear"),
    "says nothing": Bad("exit 0", "no result for incomplete build"),
    "talks something else": Bad("echo hello; sleep 1000", CLOSED),
    "talks and ends": Bad("echo hello", "no result for incomplete build"),
    "closes its output": Bad("exec >&-; sleep 1000", CLOSED),
    "floods its output": Bad("yes; sleep 1000", CLOSED),
    "floods its errors": Bad("head -c 9000000 /dev/zero | tr '\\0' x >&2; exit 4", "exit code: 4", "log limit"),
    "leaves others behind": Bad("sleep 1000 & sleep 1000 & exit 5", "exit code: 5"),
}


@pytest.mark.parametrize("name", MISBEHAVIOUR)
async def test_a_frontend_that_misbehaves(store: Store, tmp_path: Path, name: str) -> None:
    bad = MISBEHAVIOUR[name]
    await make(store, tmp_path, bad.script)
    built = await refused(store, written_for(tmp_path))
    assert bad.said in built.error
    shown = built.find(f"frontend {FRONTEND}")
    assert bad.shown in "".join(step.output for step in shown)
    assert bool(shown) == bool(bad.shown)


@pytest.mark.parametrize("runtime", ["runc", "crun"])
async def test_a_frontend_in_a_container_of_another_runtime(store: Store, tmp_path: Path, runtime: str) -> None:
    await make(store, tmp_path, TELLS)
    store.environment["PYBUILD_WORKER_RUNTIME"] = runtime
    got = await told(store, written_for(tmp_path))
    assert (got["source"], got["user"]) == (FRONTEND, "0")
    assert got["frontend"]


async def test_an_image_that_is_no_frontend(store: Store, tmp_path: Path) -> None:
    built = await refused(store, written_for(tmp_path, "base"))
    assert 'exec: "/run"' in built.error
    told = store.command("build", written_for(tmp_path, "base"), status=1).error
    assert "hint: base has no entrypoint: is it the image of a frontend?" in told


def test_a_frontend_that_hangs_is_killed_with_its_build(store: Store, tmp_path: Path) -> None:
    marker = f"hangs-{tmp_path.name}"
    frontend = write(
        tmp_path / "frontend",
        {
            "Dockerfile": 'FROM base\nCOPY --chmod=755 run /frontend\nENTRYPOINT ["/frontend"]\n',
            "run": "#!/bin/sh\necho here >&2\nsleep 1000\n",
        },
    )
    store.command("build", frontend, "-t", FRONTEND)
    context = written_for(tmp_path)
    with leftovers.watch(tmp_path, marker=marker) as watch:
        with store.start("build", context, "--build-arg", f"MARKER={marker}") as command:
            watch.engine(command.process.pid)
            command.until_output("here")
            command.process.send_signal(signal.SIGINT)
            command.wait(status=130)
        assert watch.remaining() == []
    assert leftovers.files(store.root) == []


# --- who may be run ------------------------------------------------------------------------------------------------


async def ask(store: Store, options: Mapping[str, str], inputs: Mapping[str, Definition] = {}) -> BuildError | None:
    """A build by gateway.v0 with these options: how it failed."""
    async with store.engine() as engine:
        request = BuildRequest(ref="r", frontend="gateway.v0", options=options)
        credentials = DockerConfigCredentials(Path("/nonexistent"), {})
        session = local_session(request, credentials=credentials, environment=store.environment)
        try:
            await engine.engine.build(request, session, discard, inputs=inputs)
        except BuildError as error:
            return error
    return None


async def test_capabilities_that_the_image_has(store: Store, tmp_path: Path) -> None:
    label = "LABEL moby.buildkit.frontend.caps=moby.buildkit.frontend.contexts,x+y"
    await make(store, tmp_path, "exit 3", label)
    asked = {"source": FRONTEND}
    lacking = await ask(store, asked | {"frontend.caps": "moby.buildkit.frontend.contexts,dreams"})
    assert isinstance(lacking, Unsupported)
    assert lacking.capability == "dreams"
    lacking = await ask(store, asked, {"context": scratch().file(mkfile("/a", b"")).marshal()})
    assert isinstance(lacking, Unsupported)
    assert lacking.capability == "moby.buildkit.frontend.inputs"
    assert isinstance(await ask(store, asked | {"frontend.caps": "x+forward"}), ExecFailed)


async def test_no_image_at_all(store: Store) -> None:
    failed = await ask(store, {})
    assert failed is not None
    assert failed.message == "no source specified for gateway"


async def test_frontends_that_run_each_other_for_ever(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Loop:
        async def build(self, gateway: Gateway, request: FrontendRequest) -> FrontendResult:
            return await gateway.run_frontend("loop", request.options)

    def find(self: Catalog, name: str) -> Loop:
        return Loop()

    monkeypatch.setattr(Catalog, "find", find)
    failed = await ask(store, {})
    assert isinstance(failed, UserError)
    assert "more than 8 frontends run for each other" in failed.message


async def test_a_frontend_that_is_being_developed(store: Store, tmp_path: Path) -> None:
    """Another frontend makes it, by the options that begin with `gateway-`."""
    files = {
        "Dockerfile": 'ARG N\nFROM base\nCOPY --chmod=755 run /frontend\nENTRYPOINT ["/frontend"]\nARG N\nENV N=$N\n',
        "run": "#!/bin/sh\nexit $N\n",
    }
    tree = scratch()
    for name, text in files.items():
        tree = tree.file(mkfile(f"/{name}", text.encode()))
    inputs = {"context": tree.marshal(), "dockerfile": tree.marshal()}
    devel = {"gateway-devel": "", "source": "dockerfile.v0", "gateway-build-arg:N": "6", "build-arg:N": "7"}
    lacking = await ask(store, devel, inputs)
    assert isinstance(lacking, Unsupported)
    assert lacking.capability == "moby.buildkit.frontend.inputs"
    files["Dockerfile"] += "LABEL moby.buildkit.frontend.caps=moby.buildkit.frontend.inputs\n"
    tree = tree.file(mkfile("/Dockerfile", files["Dockerfile"].encode()))
    failed = await ask(store, devel, {"context": tree.marshal(), "dockerfile": tree.marshal()})
    assert isinstance(failed, ExecFailed)
    assert failed.exit_code == 6


async def test_repositories_that_are_allowed(store: Store, tmp_path: Path) -> None:
    rules = write(tmp_path / "etc", {"pybuild.toml": '[frontend."gateway.v0"]\nallowedRepositories = ["made/other"]\n'})
    store.environment["PYBUILD_CONFIG"] = str(rules / "pybuild.toml")
    built = await refused(store, written_for(tmp_path))
    assert f"'{FRONTEND}' is not an allowed gateway source" in built.error
    write(rules, {"pybuild.toml": '[frontend."gateway.v0"]\nallowedRepositories = ["docker.io/made/frontend:2"]\n'})
    await make(store, tmp_path, "exit 3")
    assert "exit code: 3" in (await refused(store, written_for(tmp_path))).error
    write(rules, {"pybuild.toml": '[frontend."gateway.v0"]\nenabled = false\n'})
    assert "invalid frontend: gateway.v0" in (await refused(store, written_for(tmp_path))).error
