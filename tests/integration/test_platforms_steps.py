"""Steps on two platforms at once, native and emulated: one index, the same wherever it is built."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.builds import FIXTURES, Store, write
from tests.fakes.runtime_steps import make_rootfs

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
RUN uname -m > machine; mkdir d; for n in c b a; do echo $n > d/$n; done; ln d/a hard; ln -s d/b soft
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
