"""`pybuild prune`: make the build cache smaller."""

from __future__ import annotations

import click

from buildengine.builder import PrunePolicy, UsageInfo
from buildengine.cli import usage
from buildengine.cli.app import App, pass_app
from buildengine.cli.confirm import confirm
from buildengine.cli.flags import memory, value
from buildengine.cli.groups import Command
from buildengine.units import show_size

_SIZE = value(memory)


@click.command(cls=Command)
@click.option("-a", "--all", is_flag=True, help="Include internal and frontend records.")
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE", help="E.g. type=source.local, until=24h.")
@click.option("--reserved-space", type=_SIZE, default=0, metavar="SIZE", help="Always keep this much.")
@click.option("--keep-storage", type=_SIZE, default=0, hidden=True, help="The old name of --reserved-space.")
@click.option("--max-used-space", type=_SIZE, default=0, metavar="SIZE", help="Keep at most this much.")
@click.option("--min-free-space", type=_SIZE, default=0, metavar="SIZE", help="Leave this much of the disk free.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--verbose", is_flag=True, help="Show everything about what is removed.")
@pass_app
def command(
    app: App,
    /,
    all: bool,
    filters: tuple[str, ...],
    reserved_space: int,
    keep_storage: int,
    max_used_space: int,
    min_free_space: int,
    force: bool,
    verbose: bool,
) -> None:
    """Remove build cache that nothing uses."""
    conditions, until = usage.to_filters(filters)
    policy = PrunePolicy(
        all=all,
        filters=conditions,
        keep_duration=until,
        reserved_space=reserved_space or keep_storage,
        max_used_space=max_used_space,
        min_free_space=min_free_space,
    )
    what = "all build cache" if all else "all dangling build cache"
    if not force and not confirm(f"This will remove {what}."):
        return
    listing = _Listing(verbose)
    with app.open_builder() as builder:
        builder.prune(policy, listing.add)
    click.echo(f"Total:  {show_size(listing.total)}")


class _Listing:
    """Prints records as they go."""

    def __init__(self, verbose: bool) -> None:
        self.total = 0
        self._verbose = verbose
        self._is_first = True

    def add(self, record: UsageInfo) -> None:
        self.total += record.size
        if self._verbose:
            for line in usage.paragraph(record):
                click.echo(line)
            return
        if self._is_first:
            self._is_first = False
            click.echo(f"{'ID':<40} {'RECLAIMABLE':<12} {'SIZE':<10} LAST ACCESSED")
        found = usage.row(record, marked=True)
        reclaimable = "true" if found["Reclaimable"] else "false"
        click.echo(f"{found['ID']:<40} {reclaimable:<12} {found['Size']:<10} {found['LastUsedAt']}".rstrip())
