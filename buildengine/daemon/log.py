"""What the daemon says on standard error, one line each: as logfmt or as JSON.

time=2026-08-01T12:00:00Z level=info msg="running server on unix:///run/buildkit/buildkitd.sock"
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from typing import IO


class Log:
    """`form` is text or json."""

    def __init__(self, stream: IO[str], form: str = "text", *, clock: Callable[[], float] = time.time) -> None:
        self._stream = stream
        self._is_json = form == "json"
        self._clock = clock

    def info(self, message: str) -> None:
        self._write("info", message)

    def warning(self, message: str) -> None:
        self._write("warning", message)

    def bug(self, error: BaseException) -> None:
        """An error that is ours, with where it happened."""
        self._write("error", "".join(traceback.format_exception(error)))

    def _write(self, level: str, message: str) -> None:
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock()))
        quoted = json.dumps(message)
        if self._is_json:
            line = f'{{"level":"{level}","msg":{quoted},"time":"{moment}"}}'
        else:
            line = f"time={moment} level={level} msg={quoted}"
        try:
            self._stream.write(f"{line}\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass  # whoever read it has gone; a daemon goes on
