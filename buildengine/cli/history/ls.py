"""`pybuild history ls`: the builds that are remembered, as `docker buildx history ls` lists them."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from buildengine.cli.app import App, pass_app
from buildengine.cli.groups import Command
from buildengine.cli.history import records
from buildengine.cli.table import render
from buildengine.cli.usage import ago
from buildengine.history import BuildRecord

_HEADERS = {
    "Ref": "BUILD ID",
    "Name": "NAME",
    "Status": "STATUS",
    "CreatedAt": "CREATED AT",
    "Duration": "DURATION",
    "FullRef": "FULL REF",
}
_SHOWN = ("Ref", "Name", "Status", "CreatedAt", "Duration")
_LONGEST = 36


@click.command(cls=Command)
@click.option("--filter", "filters", multiple=True, metavar="FILTER", help="E.g. status=error, startedAt>=24h.")
@click.option("--format", metavar="FORMAT", help="table, json, or a template with {{.Field}}.")
@click.option("--no-trunc", is_flag=True, help="Show names in full.")
@pass_app
def command(app: App, /, filters: tuple[str, ...], format: str | None, no_trunc: bool) -> None:
    """List the builds that a daemon remembers: those that run, then the newest first."""
    with app.open_history() as history:
        found = records.newest(history, filters)
    found.sort(key=lambda record: (record.completed is not None, -record.created))
    if format == "json":
        for record in found:
            click.echo(json.dumps(_document(record), ensure_ascii=False, sort_keys=True, separators=(",", ":")))
        return
    short = not no_trunc and (not format or format.startswith("table"))
    for line in render((_row(record, short) for record in found), _HEADERS, _SHOWN, format):
        click.echo(line)


def _row(record: BuildRecord, short: bool) -> dict[str, Any]:
    name = records.name(record.options)
    ended = record.completed
    duration = records.seconds(max(0.0, (time.time() if ended is None else ended) - record.created))
    return {
        "Ref": record.ref,
        "Name": ".." + name[2 - _LONGEST :] if short and len(name) > _LONGEST else name,
        "Status": _status(record),
        "CreatedAt": ago(record.created),
        "Duration": duration if ended is not None else f"{duration}+",
        "FullRef": _full_ref(record),
    }


def _document(record: BuildRecord) -> dict[str, Any]:
    steps = record.steps
    document = {
        "ref": _full_ref(record),
        "name": records.name(record.options),
        "status": _status(record),
        "created_at": records.moment(record.created),
        "total_steps": steps.total,
        "completed_steps": steps.completed,
        "cached_steps": steps.cached,
    }
    if record.completed is not None:
        document["completed_at"] = records.moment(record.completed)
    return document


def _status(record: BuildRecord) -> str:
    if record.completed is None:
        return "Running"
    return "Completed" if record.failure is None else "Error"


def _full_ref(record: BuildRecord) -> str:
    """As `--metadata-file` has it: there are no builders and nodes here that had names."""
    return f"default/default/{record.ref}"
