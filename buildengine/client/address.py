"""Where a daemon is: the text of `--addr` and PYBUILD_HOST as a value. Pure."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from buildengine.errors import ConfigError, meant
from buildengine.values import dataclass

_SCHEMES = ("unix", "tcp", "ssh")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files: the authority that the daemon's certificate must be of, and our own certificate with its key.

    `server_name` is the name in the daemon's certificate when it is not the address's.
    """

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A daemon's address. `path` is the socket's; over ssh it is on the other host, and "" is the usual one there."""

    scheme: str
    path: str = ""
    user: str = ""
    host: str = ""
    port: int | None = None
    tls: TlsFiles | None = None

    def __str__(self) -> str:
        port = f":{self.port}" if self.port is not None else ""
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{user}{host}{port}{self.path}"

    @property
    def is_tls(self) -> bool:
        return self.tls is not None


def parse(text: str, tls: TlsFiles | None = None) -> Address:
    """`unix://PATH`, `tcp://HOST:PORT` or `ssh://[USER@]HOST[:PORT][/PATH]`. Raises ConfigError."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        hint = f"you meant unix://{text} ?" if text.startswith("/") else "e.g. unix:///run/buildkit/buildkitd.sock"
        raise ConfigError(f"the daemon's address {text!r} has no scheme", hint=hint)
    if scheme not in _SCHEMES:
        close = meant(scheme, _SCHEMES)
        hint = f"did you mean {close}://?" if close else f"the schemes are {', '.join(_SCHEMES)}"
        raise ConfigError(f"the daemon's address {text!r}: there is no scheme {scheme!r}", hint=hint)
    if tls is not None and scheme != "tcp":
        raise ConfigError(f"TLS is for tcp:// addresses, not for {text}", hint="leave out the --tls flags")
    if scheme == "unix":
        if not rest:
            raise ConfigError(f"the daemon's address {text!r} names no socket")
        return Address(scheme=scheme, path=rest)
    return _remote(text, tls)


def _remote(text: str, tls: TlsFiles | None) -> Address:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"the daemon's address {text!r}: {error}") from None
    _check(text, parts)
    if parts.scheme == "tcp" and port is None:
        raise ConfigError(f"the daemon's address {text!r} has no port", hint=f"e.g. tcp://{parts.hostname}:1234")
    path = parts.path if parts.scheme == "ssh" else ""
    return Address(
        scheme=parts.scheme, user=parts.username or "", host=parts.hostname or "", port=port, path=path, tls=tls
    )


def _check(text: str, parts: SplitResult) -> None:
    host = parts.hostname or ""
    if not host or host.startswith("-") or (parts.username or "").startswith("-"):
        raise ConfigError(f"the daemon's address {text!r} names no host")
    if parts.password is not None:
        raise ConfigError(f"the daemon's address at {host} holds a password", hint="ssh asks for it, or uses a key")
    if parts.query or parts.fragment or (parts.scheme == "tcp" and (parts.path.strip("/") or parts.username)):
        raise ConfigError(f"the daemon's address {text!r} has more than a host and a port")
