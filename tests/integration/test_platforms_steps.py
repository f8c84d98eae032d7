"""Steps on two platforms at once, native and emulated: one index, the same wherever it is built or copied to."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from buildengine.digest import Digest
from tests.builds import FIXTURES, Store, write
from tests.fakes.runtime_steps import make_rootfs
from tests.integration.test_push import inspect, serving

pytest_plugins = [FIXTURES, "tests.fakes.emulation_fixtures"]
pytestmark = pytest.mark.timeout(300)  # the first one fetches packages

BOTH = ("--platform", "linux/amd64,linux/arm64")
_DOCKERFILE = """\
FROM scratch
ARG TARGETARCH
ADD $TARGETARCH.tar /
SHELL ["/bin/busybox", "sh", "-ec"]
RUN /bin/busybox mkdir -p /bin && /bin/busybox --install -s /bin
WORKDIR /srv
RUN uname -m | tee machine; mkdir d; for n in c b a; do echo $n > d/$n; done; ln d/a hard; ln -s d/b soft
RUN chmod 4750 d/b; chown 60000:7 d/c; rm d/a; touch new; hostname > host
"""


@pytest.fixture
def context(arm64_packages: Path, tmp_path: Path) -> Path:
    directory = write(tmp_path / "context", {"Dockerfile": _DOCKERFILE})
    make_rootfs(tmp_path / "amd64")
    subprocess.run(["tar", "-C", tmp_path / "amd64", "-cf", directory / "amd64.tar", "."], check=True)
    shutil.copy(arm64_packages, directory / "arm64.tar")
    return directory


def build(store: Store, context: Path, out: Path) -> dict[str, bytes]:
    """The blobs of the index by their names, big layers left out."""
    output = f"type=oci,tar=false,rewrite-timestamp=true,dest={out}"
    told = store.command("build", context, *BOTH, "-o", output, environment={"SOURCE_DATE_EPOCH": "1700000000"})
    names = [step.name for step in told.steps.values()]
    for platform in ("linux/amd64", "linux/arm64"):
        assert any(name.startswith(f"[{platform} 5/5] RUN chmod 4750 d/b") for name in names)
    (entry,) = json.loads((out / "index.json").read_bytes())["manifests"]
    blobs = {path.name: path.read_bytes() for path in (out / "blobs/sha256").iterdir() if path.stat().st_size < 1 << 16}
    assert entry["digest"][7:] in blobs
    return blobs


def test_both_run_and_are_the_same_elsewhere(empty_store: Store, context: Path, tmp_path: Path) -> None:
    files = ("-o", f"type=local,dest={tmp_path / 'files'}")
    empty_store.command("build", context, *BOTH, *files)
    machines = [(tmp_path / "files" / name / "srv/machine").read_text() for name in ("linux_amd64", "linux_arm64")]
    assert machines == ["x86_64\n", "aarch64\n"]
    first = build(empty_store, context, tmp_path / "first")
    other = Store(tmp_path / "other", tmp_path / "home", PYBUILD_WORKER_SNAPSHOTTER="copy")
    assert build(other, context, tmp_path / "second") == first


def test_pushed_to_either_registry_and_copied_to_a_layout_and_back(
    empty_store: Store, context: Path, tmp_path: Path
) -> None:
    """The index and the image of each platform keep their digests all the way."""
    with serving("docker", tmp_path / "docker") as docker, serving("own", tmp_path / "own") as own:
        names = [f"{side.host}/team/app:1" for side in (docker, own)]
        told = empty_store.command("build", context, *BOTH, "-t", names[0], "-t", names[1], "--push")
        assert [step.output for step in told.find("RUN uname -m")] == ["x86_64\n", "aarch64\n"]
        index = inspect(names[0])
        for number, (name, back) in enumerate(zip(names, (own.host, docker.host), strict=True)):
            layout = f"oci:{tmp_path}/layout{number}:app"
            skopeo_copy("--src-tls-verify=false", f"docker://{name}", layout)
            skopeo_copy("--dest-tls-verify=false", layout, f"docker://{back}/again/app:1")
            assert inspect(name) == inspect(f"{back}/again/app:1") == index
            for entry in json.loads(index)["manifests"]:
                raw = inspect(f"{back}/again/app@{entry['digest']}")
                assert raw == inspect(f"{name.removesuffix(':1')}@{entry['digest']}")
                assert Digest.sha256(raw) == entry["digest"]


def skopeo_copy(*arguments: str) -> None:
    subprocess.run(["skopeo", "copy", "--quiet", "--all", *arguments], check=True, capture_output=True)
