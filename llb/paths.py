"""Slash-separated paths as text, the way Go's `path` package cleans and joins them. Nothing here opens a file."""

from __future__ import annotations

import posixpath


def clean(path: str) -> str:
    """The shortest path that means the same: no `//`, `.`, inner `..` or final slash; `..` stops at the root.

    >>> clean("//a/./b/../c/")
    '/a/c'
    >>> clean("")
    '.'
    """
    text = posixpath.normpath(path)
    return text[1:] if text.startswith("//") else text  # POSIX gives two leading slashes a meaning; we do not


def resolve(directory: str, path: str) -> str:
    """`path`, absolute: a relative one starts at `directory`, a relative directory at the root.

    >>> resolve("/src", "a/../b")
    '/src/b'
    >>> resolve("", "../b")
    '/b'
    """
    return clean(f"/{directory}/{path}") if not path.startswith("/") else clean(path)


def destination(directory: str, path: str) -> str:
    """Like `resolve`, but a final `/` or `/.` stays: to a copy it says that this is a directory.

    >>> destination("/src", "out/")
    '/src/out/'
    >>> destination("/src", ".")
    '/src'
    """
    text = resolve(directory, path)
    if path.endswith("/") and not text.endswith("/"):
        return text + "/"
    if path.endswith("/."):
        return text.rstrip("/") + "/."
    return text
