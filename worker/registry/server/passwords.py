"""Who may come in: basic authentication (RFC 7617) against the hashes of an htpasswd file.

A line is `user:hash`; a hash is whatever the host's libcrypt knows (crypt(5): bcrypt as `htpasswd -B` makes it,
yescrypt, SHA-512, SHA-256). Python's own `crypt` is gone from 3.13 on, so the library is called as it is.

A good hash is slow on purpose. What was right once is remembered, as a keyed hash, for the life of the server;
what is wrong costs its sender the time, in a thread.
"""

from __future__ import annotations

import base64
import binascii
import ctypes
import ctypes.util
import hmac
import secrets
from collections.abc import Mapping

from buildengine.errors import HostError, UserError
from buildengine.limits import HASH, offload
from worker.registry.server.answers import Code, Refusal

_PREFIXES = ("$2a$", "$2b$", "$2y$", "$5$", "$6$", "$y$", "$7$", "$gy$")
_CHALLENGE = (("WWW-Authenticate", 'Basic realm="pybuild registry", charset="UTF-8"'),)
_SCRATCH = 256 << 10  # struct crypt_data: 32 KiB in libxcrypt, 128 KiB in old glibc
_MOST_KNOWN = 10_000


class Passwords:
    """The users of one htpasswd file."""

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes = dict(hashes)
        self._key = secrets.token_bytes(32)
        self._right: set[bytes] = set()
        self._crypt = _libcrypt()

    async def check(self, header: str) -> None:
        """Raises Refusal with a challenge unless `header` (of Authorization) is that of a user."""
        proof = hmac.digest(self._key, header.encode(), "sha256")
        if proof in self._right:
            return
        user, password = _credentials(header)
        hashed = self._hashes.get(user)
        if hashed is None or not await offload(self._matches, password, hashed, limiter=HASH):
            raise Refusal(Code.UNAUTHORIZED, "a user and a password are needed", headers=_CHALLENGE)
        if len(self._right) < _MOST_KNOWN:
            self._right.add(proof)

    def _matches(self, password: str, hashed: str) -> bool:
        scratch = ctypes.create_string_buffer(_SCRATCH)
        result = self._crypt(password.encode(), hashed.encode(), scratch)
        return result is not None and hmac.compare_digest(result, hashed.encode())


def parse(text: str, *, name: str) -> Mapping[str, str]:
    """The hashes by user of an htpasswd file. Raises UserError."""
    hashes: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        user, colon, hashed = line.partition(":")
        if not colon or not user:
            raise UserError(f"{name}: line {number} is not user:hash", hint="make it with `htpasswd -B`")
        if not hashed.startswith(_PREFIXES):
            raise UserError(
                f"{name}: line {number} has a hash of a kind that is not taken",
                hint="make it with `htpasswd -B` (bcrypt)",
            )
        hashes[user] = hashed
    return hashes


def _credentials(header: str) -> tuple[str, str]:
    scheme, _, rest = header.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        user, _, password = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return user, password


def _libcrypt() -> ctypes._NamedFuncPointer:
    for name in ("libcrypt.so.1", "libcrypt.so.2", ctypes.util.find_library("crypt") or ""):
        try:
            function = ctypes.CDLL(name, use_errno=True).crypt_r if name else None
        except (OSError, AttributeError):
            continue
        if function is not None:
            function.restype = ctypes.c_char_p
            function.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
            return function
    raise HostError("there is no libcrypt to check passwords with", hint="install the package libcrypt1")
