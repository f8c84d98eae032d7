"""What PATH | URL | - and --file mean: where the build context and the Dockerfile come from.

Looks at files and reads standard input, decides nothing about the build. As docker/buildx build/opt.go does it:
a relative --file is relative to the current directory, not to the context.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import IO

from buildengine.archive import is_archive
from buildengine.cli.missing import spelling
from buildengine.errors import UserError
from buildengine.values import dataclass

_MAX_DOCKERFILE = 16 << 20
_HEAD = 1024
_REMOTE = re.compile(r"(?:https?|git|ssh)://|github\.com/|[A-Za-z0-9_-]+@[A-Za-z0-9.-]+:", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The part of a BuildRequest that says what to build. `shown` are the names under which the user knows files."""

    options: Mapping[str, str] = field(default_factory=dict)
    directories: Mapping[str, Path] = field(default_factory=dict)
    inline_dockerfile: bytes | None = None
    context_archive: Callable[[int], bytes] | None = None
    shown: Mapping[str, str] = field(default_factory=dict)


def locate(context: str, file: str | None, stdin: IO[bytes], *, is_needed: bool = True) -> Inputs:
    """Find context and Dockerfile. Raises UserError.

    The file `is_needed`, by its usual name if no other, unless it is for a frontend that may do without.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError("the current directory no longer exists", hint="cd to one that does") from None
    if file is not None and _is_url(file):
        raise UserError(f"--file {file}: a Dockerfile cannot be a URL", hint="fetch it and pipe it in: --file -")
    if context == "-":
        return _from_stdin(file, stdin)
    if os.path.isdir(context) and file is None and not is_needed:
        directory = Path(context).absolute()
        return Inputs(directories={"context": directory, "dockerfile": directory})
    if os.path.isdir(context):
        return _from_directory(context, file, stdin)
    if _REMOTE.match(context):
        return _from_remote(context, file, stdin)
    raise _no_context(context)


def _from_directory(context: str, file: str | None, stdin: IO[bytes]) -> Inputs:
    directories = {"context": Path(context).absolute()}
    if file == "-":
        return _inline(_read_stdin(stdin), "stdin", directories=directories)
    if file is None:
        file = _default_dockerfile(context)
    mode = _mode(context, file)
    if not stat.S_ISREG(mode):  # --file <(generate): a pipe that can be read once
        return _inline(_read_pipe(file), file, directories=directories)
    path = Path(file).absolute()
    directories["dockerfile"] = path.parent
    return Inputs(options={"filename": path.name}, directories=directories, shown={path.name: file})


def _default_dockerfile(context: str) -> str:
    try:
        names = set(os.listdir(context))
    except OSError as error:
        raise UserError(f"cannot read the build context {context}: {error.strerror}") from None
    for name in ("Dockerfile", "dockerfile"):  # https://github.com/moby/moby/pull/10858
        if name in names:
            return os.path.normpath(f"{context}/{name}")
    others = sorted(name for name in names if "dockerfile" in name.lower() or name == "Containerfile")
    hint = f"did you mean --file {os.path.normpath(f'{context}/{others[0]}')}?" if others else "--file names another"
    raise UserError(f"there is no Dockerfile in {_spoken(context)}", hint=hint)


def _spoken(context: str) -> str:
    return "the current directory" if os.path.normpath(context) == "." else context


def _mode(context: str, file: str) -> int:
    try:
        mode = os.stat(file).st_mode
    except OSError as error:
        inside = os.path.normpath(f"{context}/{file}")
        hint = spelling(file) or spelling(inside)
        if not os.path.isabs(file) and os.path.isfile(inside):
            hint = f"did you mean --file {inside}? It is relative to the current directory, not to the context"
        raise UserError(f"cannot read the Dockerfile {file}: {error.strerror}", hint=hint) from None
    if stat.S_ISDIR(mode):
        raise UserError(
            f"the Dockerfile {file} is a directory", hint=f"did you mean --file {file.rstrip('/')}/Dockerfile?"
        )
    return mode


def _from_stdin(file: str | None, stdin: IO[bytes]) -> Inputs:
    if file == "-":
        raise UserError("standard input cannot be both the context and the Dockerfile")
    head = stdin.read(_HEAD)
    if not head:
        raise UserError("standard input is empty", hint="pipe in a Dockerfile or a tar archive of the context")
    if is_archive(head):
        archive = _Replay(head, stdin)
        return Inputs(options={"filename": file or "Dockerfile"}, context_archive=archive.read)
    if file is not None:
        raise UserError(
            "standard input is a Dockerfile, and --file names another",
            hint="pipe in a tar archive of the context, or leave out --file",
        )
    return _inline(_bounded(_Replay(head, stdin).read, "standard input"), "stdin")


def _from_remote(context: str, file: str | None, stdin: IO[bytes]) -> Inputs:
    options = {"context": context}
    if file == "-":
        return _inline(_read_stdin(stdin), "stdin", options=options)
    if file is None or not os.path.isabs(file):  # in the repository
        # "context" is what the frontend calls a Dockerfile that was downloaded by itself; its address without a login
        shown = {"context": re.sub("//[^/@]*@", "//", context)}
        return Inputs(options={**options, "filename": file or "Dockerfile"}, shown=shown)
    _mode(context, file)
    path = Path(file)
    return Inputs(
        options={**options, "filename": path.name, "dockerfilekey": "dockerfile"},
        directories={"dockerfile": path.parent},
        shown={path.name: file},
    )


def _inline(
    dockerfile: bytes,
    shown: str,
    *,
    options: Mapping[str, str] | None = None,
    directories: Mapping[str, Path] | None = None,
) -> Inputs:
    return Inputs(
        options={**(options or {}), "filename": "Dockerfile"},
        directories=directories or {},
        inline_dockerfile=dockerfile,
        shown={"Dockerfile": shown},
    )


def _no_context(context: str) -> UserError:
    if not os.path.lexists(context):
        hint = spelling(context) or "the context is a directory, a git or http(s) URL, or - for standard input"
        return UserError(f"there is no build context {context!r}", hint=hint)
    hint = "the context is a directory"
    if os.path.isfile(context):
        with open(context, "rb") as file:
            piped = is_archive(file.read(_HEAD))
        parent = os.path.dirname(context) or "."
        hint = f"did you mean: pybuild build - < {context}" if piped else f"did you mean: --file {context} {parent}"
    return UserError(f"the build context {context} is not a directory", hint=hint)


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


class _Replay:
    """A stream from its beginning, although its `head` has been read."""

    def __init__(self, head: bytes, stream: IO[bytes]) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int) -> bytes:
        if not self._head:
            return self._stream.read(size)
        part, self._head = self._head[:size], self._head[size:]
        return part


def _read_stdin(stdin: IO[bytes]) -> bytes:
    return _bounded(stdin.read, "standard input")


def _read_pipe(file: str) -> bytes:
    with open(file, "rb") as pipe:
        return _bounded(pipe.read, file)


def _bounded(read: Callable[[int], bytes], name: str) -> bytes:
    data = bytearray()
    while len(data) <= _MAX_DOCKERFILE and (part := read(1 << 20)):
        data += part
    if len(data) > _MAX_DOCKERFILE:
        raise UserError(f"{name} is no Dockerfile: it is larger than {_MAX_DOCKERFILE >> 20} MiB")
    return bytes(data)
