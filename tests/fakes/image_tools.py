"""The programs that judge our images: buildah, skopeo, umoci, runc and GNU tar, each on files of its own.

buildah runs in a mount namespace that ends with the command, so none of its mounts stay. A program that is missing
fails the test: what is not looked at by others is not tested.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.builds import PYBUILD

FIXTURES = "tests.fakes.image_fixtures"

_MIRROR = """unqualified-search-registries = ["docker.io"]
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "{host}"
insecure = true
[[registry]]
location = "{host}"
insecure = true
"""


def files_in(root: Path) -> dict[str, str]:
    """The text of every file below `root`, by its path."""
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def run(*argv: str | Path, environment: Mapping[str, str] | None = None, **more: Any) -> bytes:
    """Standard output of a program that must succeed."""
    text = [str(argument) for argument in argv]
    done = subprocess.run(text, capture_output=True, env={**os.environ, **(environment or {})}, check=False, **more)
    assert done.returncode == 0, f"{' '.join(text)}\n{done.stdout.decode()[-2000:]}\n{done.stderr.decode()[-4000:]}"
    return done.stdout


@dataclass(frozen=True, slots=True, kw_only=True)
class Pybuild:
    """The command on a state directory, with docker.io at `host`."""

    root: Path
    environment: Mapping[str, str]

    def __call__(self, *arguments: str | Path, **more: Any) -> bytes:
        return run(PYBUILD, "--root", self.root, *arguments, environment=self.environment, **more)

    def build(self, context: Path, *flags: str | Path) -> None:
        self("build", "--progress", "plain", *flags, context)


def pybuild(work: Path, host: str) -> Pybuild:
    configuration = work / "pybuild.toml"
    configuration.write_text(f'[registry."docker.io"]\nmirrors = ["{host}"]\n')
    return Pybuild(root=work / "state", environment={"PYBUILD_CONFIG": str(configuration), "HOME": str(work)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Buildah:
    """buildah on a store of its own below `work`, with docker.io at `host`."""

    work: Path
    environment: Mapping[str, str]

    def __call__(self, *arguments: str | Path) -> bytes:
        storage = ["--root", self.work / "buildah", "--runroot", self.work / "buildah-run"]
        namespace = ["unshare", "--mount", "--propagation", "private"]
        return run(*namespace, "buildah", *storage, *arguments, environment=self.environment)

    def build(self, context: Path, destination: str, *flags: str | Path, format: str = "docker") -> None:
        how = ["bud", "--layers", "--isolation", "oci", "--runtime", "runc", "--quiet", "--format", format]
        self(*how, "-t", destination, *flags, context)


def buildah(work: Path, host: str) -> Buildah:
    registries = work / "registries.conf"
    registries.write_text(_MIRROR.format(host=host))
    return Buildah(work=work, environment={"CONTAINERS_REGISTRIES_CONF": str(registries), "HOME": str(work)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A registry at `host` with library/busybox, library/debian and library/triggers, and two engines.

    Nothing was built before `since`: what has a later time was made by a build.
    """

    work: Path
    host: str
    pybuild: Pybuild
    buildah: Buildah
    since: float


def skopeo(*arguments: str | Path) -> bytes:
    return run("skopeo", *arguments)


def inspect(image: str, *flags: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(skopeo("inspect", *flags, image))
    return document


def extracted(archive: Path) -> Path:
    """What is in an archive, as a directory beside it: an OCI archive is a layout."""
    directory = archive.with_suffix(".layout")
    directory.mkdir()
    run("tar", "--extract", "--file", archive, "--directory", directory)
    return directory


def layout_of(image: str, directory: Path) -> Path:
    """The image as an OCI layout directory, under the tag `x`; layers are gzip there, which umoci reads."""
    skopeo("copy", "--quiet", "--dest-compress-format", "gzip", image, f"oci:{directory}:x")
    return directory


def unpack(layout: Path, directory: Path, *, tag: str = "x") -> Path:
    """The root file system of an image in an OCI layout, as umoci unpacks it."""
    run("umoci", "raw", "unpack", "--image", f"{layout}:{tag}", directory)
    return directory


def run_container(layout: Path, work: Path, *, tag: str = "x", args: Sequence[str] = ()) -> str:
    """What the image prints when runc runs it; `args` instead of its entry point and command."""
    bundle = work / "bundle"
    run("umoci", "unpack", "--image", f"{layout}:{tag}", bundle)
    document = json.loads((bundle / "config.json").read_bytes())
    document["process"]["terminal"] = False
    document["process"]["rlimits"] = []  # the host may not raise them
    if args:
        document["process"]["args"] = list(args)
    (bundle / "config.json").write_text(json.dumps(document))
    root = ["--root", str(work / "runc")]
    return run("runc", *root, "run", "--bundle", bundle, f"test-{os.getpid()}", stdin=subprocess.DEVNULL).decode()


def gnu_tar(archive: Path, *flags: str) -> list[str]:
    """How GNU tar lists an archive."""
    return run("tar", "--list", *flags, "--file", archive).decode().splitlines()


def remove(directory: Path) -> None:
    """Remove a directory of a test. Nothing may be mounted there any more."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    assert not [mount for mount in mounts if mount.startswith(os.fspath(directory))]
    shutil.rmtree(directory)
