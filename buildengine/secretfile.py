"""The contents of one `--secret`: of a bounded regular file, or of a variable."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from buildengine.builder import SecretSource
from buildengine.errors import UserError

LIMIT = 500 << 10  # bytes, as BuildKit's client: secrets are not a way to send files


def read_secret(source: SecretSource, environment: Mapping[str, str]) -> bytes | None:
    """None when the variable is not set. Blocks. Raises UserError."""
    if source.env is not None:
        value = environment.get(source.env)
        return None if value is None else os.fsencode(value)
    return _read_file(source.id, source.file or Path(source.id))


def _read_file(secret_id: str, path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise UserError(f"secret {secret_id}: {path} is not a regular file")
            data = file.read(LIMIT + 1)
    except OSError as error:
        raise UserError(f"secret {secret_id}: cannot read {path}: {error.strerror}") from error
    if len(data) > LIMIT:
        raise UserError(f"secret {secret_id}: {path} is larger than {LIMIT // 1024} KiB")
    return data
