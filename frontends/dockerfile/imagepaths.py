"""Paths of a Dockerfile that mean places in an image, read as the image's operating system writes them. Pure.

Within LLB every path has slashes and no drive. On Windows a path may have backslashes and the drive `C:`, and the
config says where programs start with backslashes. Facts: BuildKit util/system/path.go.
"""

from __future__ import annotations

from buildengine.errors import ParseError
from frontends.dockerfile.words import quote
from llb import paths


def is_absolute(path: str, os: str) -> bool:
    return path.startswith("/") or (os == "windows" and _is_rooted(path))


def _is_rooted(path: str) -> bool:
    try:
        return slashed(path, "windows").startswith("/")
    except ParseError:
        return False  # told where the path is used


def slashed(path: str, os: str) -> str:
    """The path as LLB has it; of Windows without its drive, and cleaned but for a final slash. Raises ParseError."""
    if os != "windows":
        return path
    if path[1:] == ":":
        raise ParseError(f"no relative path specified in {quote(path)}", hint="write C:/ for the root of the drive")
    text = path.replace("\\", "/")
    if text.startswith("//"):
        raise ParseError(f"UNC paths are not supported: {quote(path)}", hint="name a place on drive C:")
    drive, colon, rest = text.partition(":")
    if colon and drive.lower() != "c":
        raise ParseError(f"{quote(path)} is not on the system drive (C:)", hint="an image has no other drive")
    rest = rest if colon else text
    clean = paths.clean(rest)
    return clean + "/" if rest.endswith("/") and clean != "/" else clean


def work_directory(current: str, path: str, os: str) -> str:
    """Where WORKDIR leads, as LLB has it; `current` as the config has it."""
    if os != "windows":
        return path if path.startswith("/") else paths.resolve(current, path)
    return paths.resolve(paths.resolve("/", slashed(current, os)), slashed(path, os) if path else "")


def in_config(directory: str, os: str) -> str:
    """A directory as the config of the image writes it."""
    return directory.replace("/", "\\") if os == "windows" else directory


def destination(directory: str, path: str, os: str) -> str:
    """Where COPY and ADD write to: a final slash, which says that it is a directory, stays."""
    path = slashed(path, os) if path else ""
    return paths.destination(directory, "./" if path in ("", ".") else path)


def source(path: str, os: str) -> str:
    """What COPY and ADD take, from the root of the context or stage."""
    return paths.resolve("/", slashed(path, os))
