"""What a case of image_cases.py is, and the differences from buildah that most of them have.

`tree` and `config` are the differences that are right, as a pattern for a line of `file_trees.differences` (or of
the config's) and the reason. `theirs` rewrites the Dockerfile into what buildah 1.28 understands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes import image_contexts as contexts


def _nothing(context: Path) -> None:
    """No files but the Dockerfile."""


def _same(text: str) -> str:
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    name: str
    dockerfile: str
    context: Callable[[Path], None] = _nothing
    flags: tuple[str, ...] = ()
    their_flags: tuple[str, ...] = ()
    theirs: Callable[[str], str] = _same
    tree: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)

    def prepare(self, context: Path) -> Path:
        context.mkdir(parents=True)
        self.context(context)
        (context / "Dockerfile").write_text(self.dockerfile)
        (context / "Dockerfile.theirs").write_text(self.theirs(self.dockerfile))
        contexts.age(context)
        return context


LEFT = {
    r"(dev|proc|sys|run|run/secrets|etc/(hosts|hostname|resolv.conf)): missing here": "buildah's mounts leave these",
}
LEFT_BEHIND = {
    **LEFT,
    r"(etc|run|root): mtime": "and with that changes these directories' times",
}
NEW_DIRECTORY = (
    "a directory that COPY makes for one it copies gets its time (BuildKit, fsutil copy.go); buildah's is new"
)
EVERY_CONFIG = {
    r"Labels\.io\.buildah\.version: ": "buildah signs its images",
    r"Hostname: None '[0-9a-f]{12}'": "and leaves the name of its container in them",
    r"ArgsEscaped: True None": "BuildKit sets it with every CMD and ENTRYPOINT",
}
