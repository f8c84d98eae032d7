"""Flags that `docker build` has from before BuildKit: taken, so that scripts go on working, but without an effect.

Told on standard error, unless whoever gives one loses nothing by that. docker buildx does the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])

_LIMITS = "step-memory and step-cpus of [worker] in pybuild.toml limit steps"
_CPUS = "steps run in the cgroup that --cgroup-parent names"
_SWITCHES = {
    "--rm": "",
    "--force-rm": "",
    "--compress": "",
    "--squash": "COPY --from of a stage makes one layer of what it has",
}
_VALUES = {
    ("-m", "--memory"): _LIMITS,
    ("--memory-swap",): _LIMITS,
    ("-c", "--cpu-shares"): _LIMITS,
    ("--cpu-period",): _LIMITS,
    ("--cpu-quota",): _LIMITS,
    ("--cpuset-cpus",): _CPUS,
    ("--cpuset-mems",): _CPUS,
    ("--isolation",): "steps have namespaces of their own in any case",
    ("--security-opt",): "RUN --security=insecure needs --allow security.insecure",
}


def flags(command: _F) -> _F:
    """The command with these flags, of which its help says nothing."""
    for switch, why in _SWITCHES.items():
        command = click.option(switch, is_flag=True, **_ignored(switch, why))(command)
    for names, why in _VALUES.items():
        command = click.option(*names, multiple=True, **_ignored(names[-1], why))(command)
    return command


def _ignored(name: str, why: str) -> dict[str, Any]:
    def tell(_context: click.Context, _parameter: click.Parameter, given: object) -> None:
        if given and why:
            click.echo(f"warning: {name} has no effect: {why}", err=True)

    return {"hidden": True, "expose_value": False, "callback": tell}
