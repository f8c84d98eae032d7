"""What every command gets: the configuration, read when it is asked for, and the way to an engine.

`pybuild --help` pays for what is imported here, so configuration and engine are imported where they are used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from buildengine.cli.report import Reporter

if TYPE_CHECKING:
    from buildengine.builder import Builder
    from buildengine.config import Config
    from buildengine.registries import ImageTools, Registries

    OpenBuilder = Callable[[Config], AbstractContextManager[Builder]]
    MakeRegistries = Callable[[Config], Registries]
    MakeImageTools = Callable[[Config], ImageTools]


def open_local(config: Config) -> AbstractContextManager[Builder]:
    """An engine inside this command."""
    from buildengine.daemon.local_builder import open_local_builder

    return open_local_builder(config)


def make_registries(config: Config) -> Registries:
    """Logins of this user. Needs no engine, and no root."""
    from buildengine.daemon.login import LocalRegistries

    return LocalRegistries(config)


def make_image_tools(config: Config) -> ImageTools:
    """Images in registries. Needs no engine, and no root."""
    from buildengine.daemon.imagetools import LocalImageTools

    return LocalImageTools(config)


class App:
    """One run of the program. `root`, `file` and `debug` are the global flags."""

    def __init__(
        self,
        open_builder: OpenBuilder = open_local,
        make_registries: MakeRegistries = make_registries,
        make_image_tools: MakeImageTools = make_image_tools,
    ) -> None:
        self._make_image_tools = make_image_tools
        self._open_builder = open_builder
        self._make_registries = make_registries
        self.root: str | None = None
        self.file: Path | None = None
        self.debug = False

    @cached_property
    def config(self) -> Config:
        from buildengine.config import load

        config = load(file=self.file, flags={"root": self.root, "debug": self.debug or None})
        self.debug = config.debug
        return config

    def open_builder(self) -> AbstractContextManager[Builder]:
        return self._open_builder(self.config)

    @property
    def registries(self) -> Registries:
        return self._make_registries(self.config)

    @property
    def image_tools(self) -> ImageTools:
        return self._make_image_tools(self.config)

    def reporter(self) -> Reporter:
        colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")  # https://no-color.org
        return Reporter(sys.stderr, colour=colour, debug=self.debug)


pass_app = click.make_pass_decorator(App)
