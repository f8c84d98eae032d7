"""The seam between the command line and registries: what needs neither an engine nor its state. As `builder`, but a
module of its own, since no build pays for it.

`Registries` are logins. Implemented by `buildengine.daemon`; calls block, and raise BuildError.
"""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Protocol

from buildengine.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Who somebody says to be at a registry."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A login that the registry took. `unencrypted` is the file that its password was written to as it is, if any."""

    host: str
    unencrypted: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """A logout. `key` is how docker calls the registry; `problems` why a credential helper may hold it still."""

    key: str
    problems: tuple[str, ...] = ()


class Registries(Protocol):
    """Logins, kept where docker keeps them. A server is a host, or a URL of one; "" is Docker Hub."""

    def known_user(self, server: str) -> str | None:
        """Whose password is kept for `server`; None when none is."""
        ...

    def log_in(self, server: str, login: Login | None) -> Kept:
        """Ask the registry, then keep the login; None: with what is kept already. Raises RegistryError."""
        ...

    def log_out(self, server: str) -> Forgotten: ...
