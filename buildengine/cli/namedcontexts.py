"""What --build-context means: directories and OCI layouts that the build is offered, and what frontends are told.

Facts: docker/buildx build/opt.go (loadInputs).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path

from buildengine.cli.missing import spelling
from buildengine.errors import UserError
from buildengine.values import dataclass

_LAYOUT = "oci-layout://"
_ELSEWHERE = re.compile(r"docker-image://|https?://|git://|ssh://|git@", re.IGNORECASE)
_TAKEN = ("context", "dockerfile")  # the build's own directories


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedContexts:
    """A part of a BuildRequest."""

    options: Mapping[str, str] = field(default_factory=dict)
    directories: Mapping[str, Path] = field(default_factory=dict)
    layouts: Mapping[str, Path] = field(default_factory=dict)


def named_contexts(given: Sequence[tuple[str, str]]) -> NamedContexts:
    """Raises UserError for what is not there."""
    options: dict[str, str] = {}
    directories: dict[str, Path] = {}
    layouts: dict[str, Path] = {}
    for name, where in given:
        key = f"context:{name}"
        if where.startswith(_LAYOUT):
            from buildengine import ocilayout

            image = ocilayout.find(where.removeprefix(_LAYOUT))
            store = f"layout-{len(layouts)}"
            layouts[store] = image.path
            options[key] = f"{_LAYOUT}{store}@{image.digest}"
        elif _ELSEWHERE.match(where):
            options[key] = where
        else:
            local = f"_{name}" if name in _TAKEN else name
            directories[local] = _directory(name, where)
            options[key] = f"local:{local}"
    return NamedContexts(options=options, directories=directories, layouts=layouts)


def _directory(name: str, path: str) -> Path:
    if not os.path.isdir(path):
        hint = None if os.path.lexists(path) else spelling(path)
        raise UserError(f"--build-context {name}={path}: {path} is not a directory", hint=hint)
    return Path(path).absolute()
