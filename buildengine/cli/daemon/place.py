"""Where the daemon of this host is, and the line that lets other commands use it."""

from __future__ import annotations

import shlex

from buildengine.cli.app import DAEMON, App
from buildengine.errors import UserError


def socket_path(app: App) -> str:
    """Raises UserError when the address is not a socket of this host."""
    address = app.address(DAEMON)
    if address.scheme != "unix":
        raise UserError(
            f"pybuild daemon is for a daemon on this host, not for {address}",
            hint="--addr unix://PATH names its socket; unset PYBUILD_HOST for the usual one",
        )
    return address.path


def export_line(path: str) -> str:
    return f"export PYBUILD_HOST={shlex.quote(f'unix://{path}')}"
