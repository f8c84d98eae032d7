"""Who may come in: basic authentication (RFC 7617) against the hashes of an htpasswd file.

A line is `user:hash`; a hash is whatever the host's libcrypt knows (crypt(5): bcrypt as `htpasswd -B` makes it,
yescrypt, SHA-512, SHA-256). Python's own `crypt` is gone from 3.13 on, so the library is called as it is.

A good hash is slow on purpose. What was right once is remembered, as a keyed hash, for the life of the server.
What is wrong costs its sender the time, in a thread, whether there is such a user or not; and one is looked at after
the other, so that guesses never take more than one thread from the uploads.
"""

from __future__ import annotations

import base64
import binascii
import ctypes
import hmac
import secrets
from collections.abc import Mapping

import trio

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
        self._decoy = next(iter(self._hashes.values()), "")
        self._right: set[bytes] = set()
        self._turn = trio.Lock()
        self._crypt = _libcrypt()

    async def check(self, header: str) -> None:
        """Raises Refusal with a challenge unless `header` (of Authorization) is that of a user."""
        proof = hmac.digest(self._key, header.encode(), "sha256")
        if proof in self._right:
            return
        credentials = _credentials(header)
        if credentials is None or not await self._are_right(proof, *credentials):
            raise Refusal(Code.UNAUTHORIZED, "a user and a password are needed", headers=_CHALLENGE)

    async def _are_right(self, proof: bytes, user: str, password: str) -> bool:
        async with self._turn:
            if proof in self._right:  # meanwhile: a client begins on several connections at once
                return True
            hashed = self._hashes.get(user, self._decoy)
            matches = await offload(self._matches, password, hashed, limiter=HASH)
            is_right = matches and user in self._hashes
            if is_right and len(self._right) < _MOST_KNOWN:
                self._right.add(proof)
            return is_right

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


def _credentials(header: str) -> tuple[str, str] | None:
    scheme, _, rest = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    if not colon or "\0" in password:  # no character of a password (RFC 7617, 2); crypt would end there
        return None
    return user, password


def _libcrypt() -> ctypes._NamedFuncPointer:
    for name in ("libcrypt.so.1", "libcrypt.so.2"):
        try:
            function = ctypes.CDLL(name).crypt_r
        except (OSError, AttributeError):
            continue
        function.restype = ctypes.c_char_p
        function.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
        return function
    raise HostError("there is no libcrypt to check passwords with", hint="install the package libcrypt1")
