"""A file of the build context that is not there: what may be meant, from what there is on this side.

A daemon sees only what was asked for, so whoever has the directory looks into it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from buildengine.errors import BuildError, Location, SolveError, meant

_NOT_FOUND = re.compile(r"""(?:^|: )["'](/[^"']*)["']: not found$""")
_TOO_LATE = re.compile(
    r"^\s*(COPY|ADD)\s+(?:--\S+\s+)*[^-\s].*\s(--(?:chown|chmod|from|link|exclude|parents)\b\S*)", re.I
)
_OTHERS = ("--from=", "from=")  # then it is missing from a stage, an image or another context
_MOST_NAMES = 10_000  # of a directory that are looked at
_SHOWN = 5


def advise(error: BuildError, directories: Mapping[str, Path], filename: str = "Dockerfile") -> None:
    """Put it into the hint of `error`, where it is about the context and the context is a directory here.

    `filename` is the Dockerfile's, in the directory `dockerfile`: an ignore file may be called after it.
    """
    first = error.first if isinstance(error, SolveError) else error
    if _NOT_FOUND.search(first.message) and (late := _flag_behind_files(first.locations)):
        first.hint = late
        return
    found, directory = _NOT_FOUND.search(first.message), directories.get("context")
    if (
        "link" in (first.hint or "")
        or found is None
        or directory is None
        or any(_is_of_others(location) for location in first.locations)
    ):
        return
    ignored = excluded(directory, directories.get("dockerfile", directory) / filename, found[1])
    first.hint = ignored or advice(directory, found[1]) or first.hint


def _flag_behind_files(locations: Iterable[Location]) -> str:
    """A flag is one only before the files: behind them it is taken for another file, or for the destination."""
    for location in locations:
        for line in _marked(location, location.text.decode("utf-8", "replace").split("\n")):
            if found := _TOO_LATE.match(line):
                return f"flags come first: {found[1]} {found[2]} ..."
    return ""


def _is_of_others(location: Location) -> bool:
    lines = location.text.decode("utf-8", "replace").split("\n")
    return any(word in line for line in _marked(location, lines) for word in _OTHERS)


def _marked(location: Location, lines: list[str]) -> Iterator[str]:
    for each in location.ranges:
        yield from lines[each.start_line - 1 : max(each.start_line, each.end_line)]


def advice(directory: Path, path: str) -> str:
    """`did you mean src/main.go?`, or what there is where the path ends; "" for a pattern, and for what is there."""
    if re.search(r"[*?\[]", path):
        return ""
    meant: list[str] = []
    wanted = [part for part in path.split("/") if part]
    for part in wanted:
        names = _names(directory.joinpath(*meant))
        close = part if part in names else _much_like(part, names)
        if close is None:
            return _there_is(meant, names)
        meant.append(close)
    return f"did you mean {'/'.join(meant)}?" if meant != wanted else ""


def spelling(path: str) -> str | None:
    """`did you mean PATH?` for a path of this host that is not there; None where nothing is near."""
    root = "/" if os.path.isabs(path) else ""
    meant: list[str] = []
    for part in (part for part in path.split("/") if part):
        place = root + "/".join(meant)
        if os.path.lexists(os.path.join(place, part)):
            meant.append(part)
            continue
        names = _names(Path(place or "."))
        close = _much_like(part, names)
        if close is None:
            return None
        meant.append(close)
    return f"did you mean {root}{'/'.join(meant)}?" if meant else None


def excluded(directory: Path, dockerfile: Path, path: str) -> str:
    """What keeps a file out that is there: the ignore file, and its pattern; "" where that is not why."""
    from buildengine.errors import UserError
    from frontends.dockerfile import ignore
    from frontends.dockerfile.lines import SourceFile
    from llb.patterns import PatternMatcher

    name = path.strip("/")
    own, usual = dockerfile.with_name(f"{dockerfile.name}.dockerignore"), directory / ".dockerignore"
    file = own if own.is_file() else usual
    if not name or not os.path.lexists(directory / name):
        return ""
    try:
        patterns = ignore.read(SourceFile(filename=file.name, data=file.read_bytes()))
        if not PatternMatcher(patterns).matches(name):
            return ""
        guilty = [each for each in patterns if not each.startswith("!") and PatternMatcher([each]).matches(name)]
    except (OSError, UserError):
        return ""
    return f"{name} is there, but {file.name} leaves it out: {guilty[-1]}" if guilty else ""


def _much_like(name: str, names: list[str]) -> str | None:
    """The same in another case, or what is at most two edits away; of a short name those are all of it."""
    from frontends.dockerfile.suggest import nearest

    in_another_case = next((each for each in sorted(names) if each.lower() == name.lower()), None)
    close = in_another_case or nearest(name, names)
    return close if close == in_another_case else meant(name, [close] if close else [])


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
