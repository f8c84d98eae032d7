"""click as we need it: groups whose commands are imported only when used, flags with values as Go writes them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from buildengine.errors import meant

_TRUE = frozenset(("1", "t", "T", "true", "True", "TRUE"))
_FALSE = frozenset(("0", "f", "F", "false", "False", "FALSE"))


class LazyGroup(click.Group):
    """A group that knows its commands by name: `commands` maps each to its module and its one-line help.

    The module holds the command as `command`. A command's help line is here, so that `--help` imports nothing; one
    without is not shown.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy:
            return None
        found: click.Command = importlib.import_module(self._lazy[cmd_name][0]).command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._lazy.items() if text])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name in self._lazy or name.startswith("-"):
            return super().resolve_command(ctx, args)
        shown = [known for known, (_, text) in self._lazy.items() if text]
        close = meant(name, shown)
        hint = f"did you mean {close}?" if close else "the commands are " + ", ".join(shown)
        raise Misuse(f"there is no command {name!r}", hint, ctx)


class Misuse(click.UsageError):
    """Flags or arguments that make no sense (together). Exits with 2."""

    def __init__(self, message: str, hint: str | None = None, ctx: click.Context | None = None) -> None:
        super().__init__(message, ctx)
        self.hint = hint


@contextmanager
def _known_as(ctx: click.Context) -> Iterator[None]:
    """Tell a usage error which command it is about, where click does not."""
    try:
        yield
    except click.UsageError as error:
        error.ctx = error.ctx or ctx
        raise


class Command(click.Command):
    """A command whose switches also take a value, as scripts for docker write it: `--pull=true`, `--load=false`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        switches = {
            name: param.secondary_opts[:1]
            for param in self.params
            if isinstance(param, click.Option) and param.is_flag and param.is_bool_flag
            for name in param.opts
        }
        with _known_as(ctx):
            return super().parse_args(ctx, _without_switch_values(args, switches))

    def invoke(self, ctx: click.Context) -> Any:
        with _known_as(ctx):
            return super().invoke(ctx)


def _without_switch_values(args: list[str], switches: Mapping[str, list[str]]) -> list[str]:
    """`args` with plain switches. `switches` has, for each, the one that says the opposite, when there is one."""
    end = args.index("--") if "--" in args else len(args)
    result = []
    for arg in args[:end]:
        name, equals, value = arg.partition("=")
        if equals and name in switches and value in _FALSE:
            result += switches[name]
        else:
            result.append(name if equals and name in switches and value in _TRUE else arg)
    return result + args[end:]
