"""docker-buildx's debuggers before pybuildd and before buildkitd: the debug adapter, and the monitor on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.builds import write
from tests.conformance import alike
from tests.conformance.buildx import PATIENCE
from tests.conformance.sides import Side, Sides

DOCKERFILE = """\
FROM base AS made
ARG WHO=world
ENV K=v
RUN echo "hello $WHO" > /hello
FROM made
WORKDIR /srv
COPY a.txt /srv/
"""
EXPERIMENTAL = {"BUILDX_EXPERIMENTAL": "1"}


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write(tmp_path / "context", {"Dockerfile": DOCKERFILE, "a.txt": "public"})


# --- the debug adapter ----------------------------------------------------------------------------------------


class Adapter:
    """`docker-buildx dap build`, and the editor before it. Facts: the Debug Adapter Protocol's specification."""

    def __init__(self, side: Side, context: Path) -> None:
        environment = {**side.buildx.environment, **EXPERIMENTAL}
        argv = side.buildx.argv("dap", "build", context)
        self._process = subprocess.Popen(
            argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._last = 0

    def ask(self, command: str, **arguments: Any) -> Any:
        """The body of the answer."""
        self.say(command, **arguments)
        return self.wait("command", command)

    def say(self, command: str, **arguments: Any) -> None:
        self._last += 1
        message = {"seq": self._last, "type": "request", "command": command, "arguments": arguments}
        data, pipe = json.dumps(message).encode(), self._process.stdin
        assert pipe is not None
        pipe.write(b"Content-Length: %d\r\n\r\n%b" % (len(data), data))
        pipe.flush()

    def wait(self, key: str, name: str) -> Any:
        """The body of the next event, or answer, of that name."""
        while (message := self._next()).get(key) != name:
            pass
        return message.get("body")

    def close(self) -> int:
        """Its exit status."""
        self._process.communicate(timeout=PATIENCE)
        return self._process.returncode

    def _next(self) -> dict[str, Any]:
        pipe = self._process.stdout
        assert pipe is not None
        length = 0
        while (line := pipe.readline().strip().lower()) or not length:
            name, _, value = line.partition(b":")
            length = int(value) if name == b"content-length" else length
            assert line, "it has ended"
        found: dict[str, Any] = json.loads(pipe.read(length))
        return found


def test_the_debug_adapter(sides: Sides, context: Path) -> None:
    """Steps, a breakpoint, where it stands, and what is in the file system there."""
    ours, theirs = (_debugged(side, context) for side in sides)
    assert ours == theirs
    assert [line for line, _ in ours[2]] == [4, 7]


def _debugged(side: Side, context: Path) -> list[Any]:
    editor, file = Adapter(side, context), str(context / "Dockerfile")
    editor.ask("initialize", adapterID="test", linesStartAt1=True, columnsStartAt1=True)
    editor.say("launch", dockerfile=file, contextPath=str(context), stopOnEntry=True)
    points = editor.ask("setBreakpoints", source={"name": "Dockerfile", "path": file}, breakpoints=[{"line": 7}])
    editor.say("configurationDone")
    stops = [editor.wait("event", "stopped")]
    thread = stops[0]["threadId"]
    frames, seen = [], []
    for command in ("next", "continue"):
        editor.say(command, threadId=thread)
        stops.append(editor.wait("event", "stopped"))
        (frame,) = editor.ask("stackTrace", threadId=thread)["stackFrames"]
        frames.append((frame["line"], frame["name"]))
        for scope in editor.ask("scopes", frameId=frame["id"])["scopes"]:
            variables = editor.ask("variables", variablesReference=scope["variablesReference"])["variables"]
            seen.append((scope["name"], [(each["name"], each["value"]) for each in variables]))
    editor.say("continue", threadId=thread)
    editor.wait("event", "terminated")
    return [points, stops, frames, seen, editor.close()]


# --- the monitor ----------------------------------------------------------------------------------------------


def test_a_shell_where_a_step_has_failed(sides: Sides, tmp_path: Path) -> None:
    """On a terminal: in the container of the step, with its environment and what it has left."""
    context = write(tmp_path, {"Dockerfile": "FROM base\nENV K=v\nRUN echo made > /made; exit 3\n"})
    words = ("debug", "--on=error", "--invoke=/bin/sh", "build", "--progress=plain", context)
    typed = (("/ # ", "cat /made; echo $K-$((6 * 7)); id -u"), ("/ # ", "exit"), ("(buildx) ", "exit"))
    shown = [_typed(side, words, typed) for side in sides]
    assert "made\nv-42\n0\n" in shown[0].replace("\r", "")
    ours, theirs = (
        alike.text(side, text.partition("Launching")[2]).split() for side, text in zip(sides, shown, strict=True)
    )
    assert "".join(ours) == "".join(theirs)  # the echo of what is typed and the program's lines come as they come


def _typed(side: Side, words: Sequence[object], typed: Sequence[tuple[str, str]]) -> str:
    """What is on the screen at the end; each line is typed when there is the prompt before it."""
    ours, theirs = pty.openpty()
    environment = {**side.buildx.environment, **EXPERIMENTAL, "TERM": "dumb"}
    client = subprocess.Popen(
        side.buildx.argv(*words), env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    screen = ""
    try:
        for prompt, line in typed:
            screen += _read(ours, prompt)
            os.write(ours, line.encode() + b"\r")
        return screen + _read(ours)
    finally:
        client.kill()
        client.wait()
        os.close(ours)


def _read(terminal: int, prompt: str = "") -> str:
    """Until the prompt; without one, until the program has ended."""
    text = ""
    while not prompt or not text.endswith(prompt):
        assert select.select([terminal], [], [], PATIENCE)[0], text
        try:
            data = os.read(terminal, 4096)
        except OSError:  # EIO: nobody is left on the other side
            data = b""
        if not data:
            assert not prompt, text
            break
        text += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode(errors="replace"))
    return text
