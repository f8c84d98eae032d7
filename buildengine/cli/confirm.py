"""Asking before something is lost."""

from __future__ import annotations

import sys

import click

from buildengine.cli.groups import Misuse


def confirm(warning: str) -> bool:
    """Whether the user says y. A pipe may answer as well; without any answer, --force is wanted."""
    click.echo(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ", nl=False)
    sys.stdout.flush()
    answer = sys.stdin.readline()
    if not answer:
        click.echo()
        raise Misuse("there is nobody to ask: standard input is at its end", "--force does not ask")
    return answer.strip().lower() in ("y", "yes")
