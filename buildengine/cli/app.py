"""What every command gets: the configuration, read when it is asked for, and the way to an engine.

`pybuild --help` pays for what is imported here, so configuration and engine are imported where they are used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from buildengine.cli.groups import Misuse
from buildengine.cli.report import Reporter
from buildengine.values import dataclass

if TYPE_CHECKING:
    from buildengine.builder import Builder, LocalBuilder
    from buildengine.client.address import Address
    from buildengine.config import Config
    from buildengine.history import BuildHistory
    from buildengine.registries import ImageTools, Registries

    OpenBuilder = Callable[[Config], AbstractContextManager[LocalBuilder]]
    OpenRemote = Callable[[Config, Address], AbstractContextManager[Builder]]
    OpenHistory = Callable[[Config], AbstractContextManager[BuildHistory]]
    MakeRemoteHistory = Callable[[Address], BuildHistory]
    MakeRegistries = Callable[[Config], Registries]
    MakeImageTools = Callable[[Config], ImageTools]


DAEMON = "unix:///run/buildkit/buildkitd.sock"  # where a daemon is that nobody has named: buildkitd's own place


def open_local(config: Config) -> AbstractContextManager[LocalBuilder]:
    """An engine inside this command."""
    from buildengine.daemon.local_builder import open_local_builder

    return open_local_builder(config)


def open_remote(config: Config, address: Address) -> AbstractContextManager[Builder]:
    """A daemon elsewhere. Needs no engine, and no root."""
    from buildengine.client.remote_builder import open_remote_builder

    return open_remote_builder(config, address)


def open_local_history(config: Config) -> AbstractContextManager[BuildHistory]:
    """What a daemon has written of its builds on this host."""
    from buildengine.daemon.local_history import open_local_history

    return open_local_history(config)


def make_remote_history(address: Address) -> BuildHistory:
    """What a daemon remembers. Needs no engine, and no root."""
    from buildengine.client.history import RemoteHistory

    return RemoteHistory(address)


def make_registries(config: Config) -> Registries:
    """Logins of this user. Needs no engine, and no root."""
    from buildengine.daemon.login import LocalRegistries

    return LocalRegistries(config)


def make_image_tools(config: Config) -> ImageTools:
    """Images in registries. Needs no engine, and no root."""
    from buildengine.daemon.imagetools import LocalImageTools

    return LocalImageTools(config)


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """The global flags that name a daemon. `address` "": there is none, the engine is in this command."""

    address: str = ""
    tls_authority: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_server_name: str = ""

    @property
    def is_tls(self) -> bool:
        return any((self.tls_authority, self.tls_certificate, self.tls_key, self.tls_server_name))


class App:
    """One run of the program. `root`, `file`, `debug` and `daemon` are the global flags."""

    def __init__(
        self,
        open_builder: OpenBuilder = open_local,
        make_registries: MakeRegistries = make_registries,
        make_image_tools: MakeImageTools = make_image_tools,
        open_remote: OpenRemote = open_remote,
        open_history: OpenHistory = open_local_history,
        make_remote_history: MakeRemoteHistory = make_remote_history,
    ) -> None:
        self._open_history = open_history
        self._make_remote_history = make_remote_history
        self._open_remote = open_remote
        self._make_image_tools = make_image_tools
        self._open_builder = open_builder
        self._make_registries = make_registries
        self.root: str | None = None
        self.file: Path | None = None
        self.debug = False
        self.daemon = Daemon()

    @cached_property
    def config(self) -> Config:
        from buildengine.config import load

        config = load(file=self.file, flags={"root": self.root, "debug": self.debug or None})
        self.debug = config.debug
        return config

    def open_builder(self) -> AbstractContextManager[Builder]:
        """The daemon that the flags name, or without one the engine."""
        if not self.daemon.address:
            return self.open_local_builder()
        return self._open_remote(self.config, self._daemon_alone())

    def open_history(self) -> AbstractContextManager[BuildHistory]:
        """That of the daemon that the flags name, or without one what is written on this host."""
        if not self.daemon.address:
            return self._open_history(self.config)
        return nullcontext(self._make_remote_history(self._daemon_alone()))

    def _daemon_alone(self) -> Address:
        if self.root is not None:
            raise Misuse("--root and --addr exclude each other", "the daemon has a state directory of its own")
        return self.address()

    def open_local_builder(self) -> AbstractContextManager[LocalBuilder]:
        """The engine on this host's state directory, whichever daemon there is."""
        return self._open_builder(self.config)

    def address(self, default: str = "") -> Address:
        """The daemon's, as the flags say. Raises ConfigError."""
        from buildengine.client.address import TlsFiles, parse

        given = self.daemon
        tls = TlsFiles(
            authority=given.tls_authority,
            certificate=given.tls_certificate,
            key=given.tls_key,
            server_name=given.tls_server_name,
        )
        return parse(given.address or default, tls if given.is_tls else None)

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
