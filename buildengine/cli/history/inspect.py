"""`pybuild history inspect`: everything about one build, as `docker buildx history inspect` shows it."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import click

from buildengine.cli.app import App, pass_app
from buildengine.cli.groups import Command
from buildengine.cli.history import description, records
from buildengine.cli.history.attachments import attachments, materials
from buildengine.cli.progress.lines import safe
from buildengine.cli.progress.model import Trace
from buildengine.cli.report import excerpt
from buildengine.cli.table import at, fill
from buildengine.errors import BuildError
from buildengine.events import Event
from buildengine.history import BuildHistory, BuildRecord, Failure

_LOGGED = 16  # lines of the step that failed


@click.command(cls=Command)
@click.argument("ref", required=False, metavar="[REF]")
@click.option("--format", metavar="FORMAT", default="pretty", help="pretty, json, or a template with {{.Field}}.")
@pass_app
def command(app: App, /, ref: str | None, format: str) -> None:
    """Show everything about a build: what was asked for, how it went, and what came of it."""
    with app.open_history() as history:
        record = records.find(history, ref)
        document = description.document(record, time.time(), _more(history, record))
    if format == "json":
        click.echo(json.dumps(document, ensure_ascii=False, indent=2))
    elif format == "pretty":
        for line in description.paragraphs(document, record, named=ref is not None):
            click.echo("\t".join(map(safe, line.split("\t"))))
    else:
        click.echo(fill(format, lambda keys: at(document, keys)))


def _more(history: BuildHistory, record: BuildRecord) -> dict[str, Any]:
    found = attachments(history, record)
    more: dict[str, Any] = {"Materials": materials(history, found)}
    more["Attachments"] = [
        {"Digest": each.digest, **({"Platform": each.platform} if each.platform else {}), "Type": each.type}
        for each in found
    ]
    if record.failure is not None:
        more["Error"] = _error(history, record, record.failure)
    return more


def _error(history: BuildHistory, record: BuildRecord, failure: Failure) -> dict[str, Any]:
    found: dict[str, Any] = {"Code": failure.code, "Message": failure.message}
    error = history.failure(record)
    if error is None:
        return found
    if error.vertex is not None:
        found |= _step(history, record, error.vertex)
    if error.locations:
        found["Sources"] = base64.b64encode(_sources(error)).decode()
    return found


def _step(history: BuildHistory, record: BuildRecord, vertex: str) -> dict[str, Any]:
    """The step that failed, and the last that it said."""
    trace = Trace(keep=_LOGGED)

    def tell(event: Event) -> None:
        trace.apply(event)

    history.logs(record.ref, tell)
    step = trace.find(vertex)
    lines = step.last_lines(_LOGGED) if step is not None else []
    return {"Name": step.name, **({"Logs": lines} if lines else {})} if step is not None else {}


def _sources(error: BuildError) -> bytes:
    return "".join(f"{line}\n" for location in error.locations for line in (*excerpt(location, {}), "")).encode()
