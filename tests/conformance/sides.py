"""pybuildd and buildkitd at once, before one registry, each with clients of its own: what one is asked, the other is.

    def test_usage(sides: Sides) -> None:
        ours, theirs = (side.buildx("du", "--format=json") for side in sides)

docker.io is the registry, whose only image is `base`, busybox for two architectures.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.bases import busybox, docker_registry, image, push
from tests.bench.engines import buildkitd, pybuildd
from tests.conformance.buildctl import raw
from tests.conformance.buildx import Buildx
from tests.conformance.peer import directory
from worker.runtime import isolate

_CONFIGURATION = """\
insecure-entitlements = ["network.host", "security.insecure"]
[registry."docker.io"]
  mirrors = ["{host}"]
[registry."{host}"]
  http = true
"""


class Side(NamedTuple):
    """One of the two. `address` is unix:PATH, `registry` host:port; `work` is a directory of its own."""

    address: str
    registry: str
    work: Path
    buildx: Buildx

    def ctl(self, *words: object, stdin: bytes = b"", status: int = 0) -> str:
        """What buildctl prints on standard output."""
        done = self.raw(*words, stdin=stdin)
        assert done.returncode == status, (done.stdout + done.stderr).decode(errors="replace")
        return done.stdout.decode(errors="replace")

    def raw(self, *words: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return raw(self.address, *words, stdin=stdin)


class Sides(NamedTuple):
    ours: Side
    theirs: Side


@contextmanager
def both_sides(work: Path) -> Iterator[Sides]:
    """All files are below `work`."""
    isolate.private_mounts()
    with ExitStack() as stack:
        host = stack.enter_context(docker_registry(work))
        tree = busybox(work)
        push(host, "library/base", image(tree), image(tree, architecture="arm64"))
        config = work / "buildkitd.toml"
        config.write_text(_CONFIGURATION.format(host=host))
        daemons = [make(work, directory(), "--config", config) for make in (pybuildd, buildkitd)]
        yield Sides(*[_side(stack.enter_context(each.running()).ctl()[-1], host, work / each.name) for each in daemons])


def _side(address: str, registry: str, work: Path) -> Side:
    work.mkdir()
    plain = address.replace("unix://", "unix:")
    return Side(address=plain, registry=registry, work=work, buildx=Buildx(work / "home", plain))
