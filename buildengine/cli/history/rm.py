"""`pybuild history rm`: forget builds, with their logs."""

from __future__ import annotations

import click

from buildengine.cli.app import App, pass_app
from buildengine.cli.failures import Failures
from buildengine.cli.groups import Command, Misuse
from buildengine.cli.history import records
from buildengine.history import HistoryQuery


@click.command(cls=Command)
@click.argument("refs", nargs=-1, metavar="[REF...]")
@click.option("--all", is_flag=True, help="Forget all builds.")
@pass_app
def command(app: App, /, refs: tuple[str, ...], all: bool) -> None:
    """Forget builds, with their logs. What they have made stays."""
    if bool(refs) == all:
        raise Misuse("either --all or at least one REF is needed")
    failures = Failures()
    with app.open_history() as history:
        if all:
            known = history.records(HistoryQuery(early_exit=True))
            refs = tuple(record.ref for record in known if record.completed is not None)
        elif any(ref.startswith("^") for ref in refs):  # all of them as they are counted now
            refs = tuple(records.find(history, ref).ref if ref.startswith("^") else ref for ref in refs)
        for ref in refs:
            with failures:
                history.remove(ref.rpartition("/")[2])
    failures.raise_any()
