"""The standard streams of a command, whatever they are: closed, full, without a reader, of another alphabet."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from buildengine.errors import UserError


def make_usable() -> None:
    """A stream may be closed (`>&-`), or unable to say what is not in the locale's alphabet."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = _explaining(sys.stdout)


def discard_unread() -> None:
    """Nobody may be there any more to read: what Python would flush at its exit, and fail with 120, goes nowhere."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, UserError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


class _Output(io.FileIO):
    """What cannot be written is the user's to mend (a full disk), and no bug. That nobody reads stays what it is."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UserError(f"cannot write to standard output: {error.strerror}") from error


def _explaining(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """The same stream, with errors that say what they are about."""
    raw = _Output(stream.fileno(), "wb", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
