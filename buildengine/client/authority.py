"""By what a daemon knows which clients may use the same token: a key for each registry, of the user's own seed.

Two clients have the same key when they have the same seed and a login. A seed is kept for each registry beside docker's
config.json, where docker's other clients find it, too. Those without a login share one key: their tokens are anybody's.
A daemon's salt sees to it that no two daemons know the same key, the seed that none has chosen it.

Facts: BuildKit session/auth/authprovider/{authprovider,tokenseed}.go; golang.org/x/crypto/nacl/sign.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import hmac
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from nacl.signing import SigningKey

from buildengine.errors import ConfigError
from buildengine.wholefile import whole_file

_FILE, _LOCK = ".token_seed", ".token_seed.lock"
_SEED = 16  # bytes


class AuthorityKey:
    """One registry's, for one daemon: `seed` is empty for who has no login there."""

    def __init__(self, salt: bytes, seed: bytes) -> None:
        self._key = SigningKey(hmac.digest(salt, seed, "sha256"))

    @property
    def public(self) -> bytes:
        return bytes(self._key.verify_key)

    def signed(self, payload: bytes) -> bytes:
        """`payload` behind its signature."""
        return bytes(self._key.sign(payload))


def seed(directory: Path, host: str) -> bytes:
    """What is kept in docker's `directory` for a registry as the daemon names it; a new one where nothing is.

    Where nothing can be written it is this process's own. Blocks. Raises ConfigError.
    """
    try:
        with _writing():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(directory / _LOCK):
            seeds = _read(directory / _FILE)
            if host not in seeds:
                seeds[host] = os.urandom(_SEED)
                with _writing(), whole_file(directory / _FILE, mode=0o600) as fd:
                    os.write(fd, _document(seeds))
            return seeds[host]
    except OSError as error:
        raise ConfigError(f"cannot use {directory / _FILE}: {error.strerror}") from None


@contextmanager
def _writing() -> Iterator[None]:
    """What may fail, since the directory need not be ours."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = -1
    try:
        with _writing():
            fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        if fd >= 0:
            os.close(fd)


def _read(path: Path) -> dict[str, bytes]:
    """Nothing of a file that is not there, or not one of seeds: docker's clients overwrite such a one, too."""
    try:
        document = json.loads(path.read_bytes())
        return {host: base64.b64decode(entry["Seed"], validate=True) for host, entry in document.items()}
    except (FileNotFoundError, PermissionError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _document(seeds: Mapping[str, bytes]) -> bytes:
    """As Go writes it."""
    entries = {host: {"Seed": base64.b64encode(seed).decode()} for host, seed in sorted(seeds.items())}
    return json.dumps(entries, indent=2).encode()
