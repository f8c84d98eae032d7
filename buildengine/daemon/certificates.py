"""What a server of ours shows who it is by: a certificate with its key, and whom it lets in."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path

from buildengine.errors import UserError
from buildengine.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files. With `authority` a client has to show a certificate that it has signed."""

    certificate: Path
    key: Path
    authority: Path | None = None


def server_context(files: TlsFiles, protocols: Sequence[str] = ()) -> ssl.SSLContext:
    """`protocols` are names of ALPN. Raises UserError for files that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if protocols:
        context.set_alpn_protocols(protocols)
    try:
        context.load_cert_chain(files.certificate, files.key)
        if files.authority is not None:
            context.load_verify_locations(files.authority)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise UserError(
            f"cannot use the certificate {files.certificate} with the key {files.key}: {error}",
            hint="all are PEM files, and the key has no passphrase",
        ) from None
    return context
