"""A file of the build context that is not there: what may be meant, from what there is on this side.

A daemon sees only what was asked for, so whoever has the directory looks into it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from buildengine.errors import BuildError, Location, SolveError

_NOT_FOUND = re.compile(r"""(?:^|: )["'](/[^"']*)["']: not found$""")
_OTHERS = ("--from=", "from=")  # then it is missing from a stage, an image or another context
_MOST_NAMES = 10_000  # of a directory that are looked at
_SHOWN = 5


def advise(error: BuildError, directories: Mapping[str, Path]) -> None:
    """Put it into the hint of `error`, where it is about the context and the context is a directory here."""
    first = error.first if isinstance(error, SolveError) else error
    found, directory = _NOT_FOUND.search(first.message), directories.get("context")
    if (
        "link" in (first.hint or "")
        or found is None
        or directory is None
        or any(_is_of_others(location) for location in first.locations)
    ):
        return
    first.hint = advice(directory, found[1]) or first.hint


def _is_of_others(location: Location) -> bool:
    lines = location.text.decode("utf-8", "replace").split("\n")
    return any(word in line for line in _marked(location, lines) for word in _OTHERS)


def _marked(location: Location, lines: list[str]) -> Iterator[str]:
    for each in location.ranges:
        yield from lines[each.start_line - 1 : max(each.start_line, each.end_line)]


def advice(directory: Path, path: str) -> str:
    """`did you mean src/main.go?`, or what there is where the path ends; "" for a pattern, and for what is there."""
    from frontends.dockerfile.suggest import nearest

    if re.search(r"[*?\[]", path):
        return ""
    meant: list[str] = []
    wanted = [part for part in path.split("/") if part]
    for part in wanted:
        names = _names(directory.joinpath(*meant))
        close = part if part in names else nearest(part, names) or nearest(part, names, case_sensitive=False)
        if close is None or close not in names:
            return _there_is(meant, names)
        meant.append(close)
    return f"did you mean {'/'.join(meant)}?" if meant != wanted else ""


def _names(directory: Path) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in islice(entries, _MOST_NAMES)]
    except OSError:
        return []


def _there_is(parts: list[str], names: list[str]) -> str:
    where = "/".join(parts) or "the context"
    if not names:
        return f"there is nothing in {where}"
    more = ", ..." if len(names) > _SHOWN else ""
    return f"in {where} there is {', '.join(sorted(names)[:_SHOWN])}{more}"
