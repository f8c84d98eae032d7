"""`pybuild du`: what the build cache holds."""

from __future__ import annotations

import click

from buildengine.cli import usage
from buildengine.cli.app import App, pass_app
from buildengine.cli.groups import Command, Misuse
from buildengine.cli.table import render


@click.command(cls=Command)
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE", help="E.g. type=exec.cachemount, inuse=true.")
@click.option("--format", metavar="FORMAT", help="table, pretty, json, or a template with {{.Field}}.")
@click.option("--verbose", is_flag=True, help="The same as --format pretty.")
@pass_app
def command(app: App, /, filters: tuple[str, ...], format: str | None, verbose: bool) -> None:
    """Show what the build cache holds, and how much of it can be removed."""
    if verbose and format:
        raise Misuse("--verbose and --format exclude each other")
    pretty = verbose or format == "pretty"
    conditions, _ = usage.to_filters(filters)
    with app.open_builder() as builder:
        records = builder.disk_usage(conditions)
    if pretty:
        for record in records:
            for line in usage.paragraph(record):
                click.echo(line)
    else:
        marked = format is None or format.startswith("table")
        rows = [usage.row(record, marked=marked) for record in records]
        for line in render(rows, usage.HEADERS, usage.SHOWN, format):
            click.echo(line)
    if not filters and (pretty or format in (None, "table")):
        for line in usage.summary(records):
            click.echo(line)
