"""The program `pybuild`: global flags, the commands by name, and the one place where a command ends.

How it ends: 0 when all went well, 2 for wrong flags, 130 for Ctrl-C, else the status of the error's class
(`buildengine.errors`). Every import here is paid by every command.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from buildengine import __version__
from buildengine.cli import streams
from buildengine.cli.app import App, Daemon, pass_app
from buildengine.cli.groups import LazyGroup, Misuse
from buildengine.cli.report import INTERRUPTED_STATUS, USAGE_STATUS, BuildFailed
from buildengine.errors import BuildError

_COMMANDS = {
    "build": ("buildengine.cli.build", "Build an image from a Dockerfile"),
    "lint": ("buildengine.cli.lint", "Tell what is odd in a Dockerfile, and mend it"),
    "pull": ("buildengine.cli.pull", "Fetch an image from a registry"),
    "push": ("buildengine.cli.push", "Push an image of the local store"),
    "du": ("buildengine.cli.du", "Show what the build cache holds"),
    "prune": ("buildengine.cli.prune", "Remove build cache"),
    "history": ("buildengine.cli.history", "Look at the builds that a daemon has made"),
    "image": ("buildengine.cli.image", "Manage the images of the local store"),
    "imagetools": ("buildengine.cli.imagetools", "Combine, copy and inspect images in registries"),
    "login": ("buildengine.cli.login", "Log in to a registry"),
    "logout": ("buildengine.cli.logout", "Log out from a registry"),
    "daemon": ("buildengine.cli.daemon", "Run a daemon on this host"),
    "registry": ("buildengine.cli.registry", "Serve images from the state directory"),
    "frontend": ("buildengine.cli.frontend", "Begin a build language of your own"),
    "debug": ("buildengine.cli.debug", "Look into definitions and the store"),
    "version": ("buildengine.cli.version", "Show the version"),
    "dial-stdio": ("buildengine.cli.dial_stdio", ""),  # for a pybuild elsewhere, through ssh
}


class _Raised(Exception):
    """Carries past click what click would take for its own: Ctrl-C, end of file, a broken pipe."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class _Program(LazyGroup):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, EOFError, OSError) as error:
            raise _Raised(error) from error


@click.group(
    cls=_Program,
    lazy=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    subcommand_metavar="COMMAND",
)
@click.option("--root", metavar="DIR", help="State directory (default: $PYBUILD_ROOT or /var/lib/pybuild).")
@click.option("--config", metavar="FILE", type=Path, help="Read this file instead of the usual pybuild.toml.")
@click.option("--debug", is_flag=True, help="Say more, above all about errors.")
@click.option(
    "--addr",
    metavar="ADDRESS",
    default="",
    envvar="PYBUILD_HOST",
    help="Let a daemon build: unix://PATH, tcp://HOST:PORT or ssh://[USER@]HOST (default: $PYBUILD_HOST).",
)
@click.option("--tlscacert", metavar="FILE", type=Path, help="Authority of the daemon's certificate (PEM).")
@click.option("--tlscert", metavar="FILE", type=Path, help="Certificate to show to the daemon.")
@click.option("--tlskey", metavar="FILE", type=Path, help="Its key.")
@click.option("--tlsservername", metavar="NAME", default="", help="Name in the daemon's certificate.")
@click.version_option(__version__, prog_name="pybuild", message="%(prog)s %(version)s")
@pass_app
def cli(
    app: App,
    root: str | None,
    config: Path | None,
    debug: bool,
    addr: str,
    tlscacert: Path | None,
    tlscert: Path | None,
    tlskey: Path | None,
    tlsservername: str,
) -> None:
    """Build images, without a daemon or with one."""
    app.root, app.file, app.debug = root, config, debug
    app.daemon = Daemon(
        address=addr,
        tls_authority=tlscacert,
        tls_certificate=tlscert,
        tls_key=tlskey,
        tls_server_name=tlsservername,
    )
    if app.daemon.is_tls and not addr:
        raise Misuse("the --tls flags are for a daemon", "name it: --addr tcp://HOST:PORT")


def main(args: Sequence[str] | None = None, app: App | None = None) -> int:
    """Run the program; its exit status."""
    app = app or App()
    streams.make_usable()
    try:
        status = cli.main(args=args, prog_name="pybuild", standalone_mode=False, obj=app)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except _Raised as raised:
        return _end(raised.error, app)
    except BaseException as error:
        return _end(error, app)
    finally:
        streams.discard_unread()


def _end(error: BaseException, app: App) -> int:
    """Say how the command ended, when that is worth a word; the exit status."""
    try:
        return _report(error, app)
    except OSError as gone:
        if not isinstance(gone, BrokenPipeError) and gone.errno != errno.EIO:  # EIO: the terminal was closed
            raise
        return 1


def _report(error: BaseException, app: App) -> int:
    reporter = app.reporter()
    if isinstance(error, BuildFailed):
        return reporter.build_error(error.error, error.trace, error.shown)
    if isinstance(error, BuildError):
        return reporter.build_error(error)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return USAGE_STATUS
    if isinstance(error, click.ClickException):
        return reporter.usage(error)
    if isinstance(error, click.Abort) or _is_interrupt(error):
        return INTERRUPTED_STATUS
    if isinstance(error, BrokenPipeError):  # whoever read our output has gone
        return 1
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    return reporter.bug(error)


def _is_interrupt(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(KeyboardInterrupt) is not None
    return isinstance(error, KeyboardInterrupt)


if __name__ == "__main__":
    sys.exit(main())
