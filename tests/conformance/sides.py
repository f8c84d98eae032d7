"""pybuildd and buildkitd at once, before one registry, each with clients of its own: what one is asked, the other is.

    def test_usage(sides: Sides) -> None:
        ours, theirs = (side.buildx("du", "--format=json") for side in sides)

docker.io is the registry. It has `base`, busybox for two architectures, and `scanner`, which lists files at the top.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.bases import busybox, docker_registry, image, layer, push
from tests.bench.engines import Daemon, buildkitd, pybuildd
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
_SCANNER = b"""\
set -e
cd "$BUILDKIT_SCAN_SOURCE"
files=$(ls | sed 's,.*,"&",' | paste -sd,)
cat > "$BUILDKIT_SCAN_DESTINATION/found.spdx.json" <<EOF
{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://spdx.dev/Document", "subject": [],
 "predicate": {"spdxVersion": "SPDX-2.3", "files": [$files]}}
EOF
"""


class Side(NamedTuple):
    """One of the two. `address` is unix:PATH, `registry` host:port, `repository` a place there for its own images.

    What it makes goes below `work`."""

    name: str
    address: str
    registry: str
    work: Path
    buildx: Buildx

    @property
    def repository(self) -> str:
        return f"{self.registry}/{self.name}"

    def filled(self, words: str) -> list[str]:
        """The words of a command: {work} and {repository} are this side's, {registry} is everybody's."""
        for name, value in (("work", self.work), ("repository", self.repository), ("registry", self.registry)):
            words = words.replace(f"{{{name}}}", str(value))
        return shlex.split(words)

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
        push(host, "library/scanner", image(tree, layer({"scan": _SCANNER}), Entrypoint=["sh", "/scan"]))
        config = work / "buildkitd.toml"
        config.write_text(_CONFIGURATION.format(host=host))
        daemons = [make(work, directory(), "--config", config) for make in (pybuildd, buildkitd)]
        yield Sides(*[_side(stack.enter_context(each.running()), host, work) for each in daemons])


def _side(daemon: Daemon, registry: str, work: Path) -> Side:
    address, own = daemon.ctl()[-1].replace("unix://", "unix:"), work / daemon.name
    own.mkdir()
    buildx = Buildx(work / f"{daemon.name}-home", address)
    return Side(name=daemon.name, address=address, registry=registry, work=own, buildx=buildx)
