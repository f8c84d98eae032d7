"""A build as text, to be kept in a file and compared: what a change of a frontend changes is then there to be read.

Steps bear numbers in place of digests, so that a difference stays where it is.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from pathlib import Path

from frontends.testing.trial import Built, BuiltImage
from llb import codec
from llb.codec.documents import op_document


def text(built: Built) -> str:
    """All of it: each platform's steps and config, and the warnings."""
    lines: list[str] = []
    for image in built.images:
        lines += [f"== {image.platform}", *_steps(image), f"config {_json(image.document)}", ""]
    for warning in built.warnings:
        where = warning.location
        place = f"{where.filename}:{','.join(str(each.start_line) for each in where.ranges)}: " if where else ""
        lines.append(f"warning: {place}{warning.message}")
    return "\n".join(lines).rstrip("\n") + "\n"


def compare(built: Built, file: Path, *, update: bool = False) -> None:
    """Fail when `file` holds another text than that of `built`; one that is not there, or with `update`, is written."""
    now = text(built)
    if update or not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(now)
        return
    before = file.read_text()
    difference = "\n".join(difflib.unified_diff(before.splitlines(), now.splitlines(), file.name, "now", lineterm=""))
    assert before == now, f"the build has changed; if that is meant, run pytest --update-snapshots\n{difference}"


def _steps(image: BuiltImage) -> Iterator[str]:
    for step in image.steps:
        on = f" <- {', '.join(str(each.number) for each in step.inputs)}" if step.inputs else ""
        platform = f" ({step.platform})" if step.platform and step.platform != image.platform else ""
        yield f"{step}{on}{platform}"
        yield f"   {_json(op_document(codec.encode(step.op))['Op'])}"


def _json(document: object) -> str:
    """Indented as deep as a difference needs it to be."""
    return json.dumps(document, indent=1, ensure_ascii=False).replace("\n", "\n   ")
