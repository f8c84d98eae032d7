"""`pybuild debug platforms`: for which platforms build steps can run here, and how."""

from __future__ import annotations

import json

import click

from buildengine.cli.app import App, pass_app
from buildengine.cli.groups import Command
from buildengine.cli.table import align


@click.command(cls=Command)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with why a platform cannot run.")
@pass_app
def command(app: App, as_json: bool) -> None:
    """Show for which platforms build steps can run on this host: natively, or through an emulator."""
    with app.open_builder() as builder:
        found = builder.platforms()
    if as_json:
        for entry in found:
            fields = {"platform": str(entry.platform), "runs": bool(entry.how), "how": entry.how or "not runnable"}
            reasons = {} if entry.how else {"reason": entry.reason, "hint": entry.hint}
            click.echo(json.dumps(fields | reasons))
        return
    rows = [f"{entry.platform}\t{entry.how or 'not runnable'}" for entry in found]
    for line in align(["PLATFORM\tHOW", *rows]):
        click.echo(line)
    for hint in dict.fromkeys(entry.hint for entry in found if entry.hint):
        click.echo(f"hint: {hint}")
