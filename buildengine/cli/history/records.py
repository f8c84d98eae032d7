"""Which builds a user means, and what they are called. Facts: docker/buildx commands/history/utils.go, util/history."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo

from buildengine.errors import SourceError, UserError
from buildengine.history import BuildHistory, BuildRecord, HistoryQuery

_MOST = 50  # builds that are looked at: recordsLimit
_FILTER = re.compile(r"([^!=<>]+)(!=|<=|>=|=|<|>)(.*)", re.DOTALL)
_VALUES, _COMPARED = ("ref", "repository", "status"), ("startedAt", "completedAt", "duration")
_DEFAULT = "Dockerfile"


def newest(history: BuildHistory, filters: Sequence[str] = (), *, ref: str = "") -> list[BuildRecord]:
    """The newest first."""
    query = HistoryQuery(ref=ref, early_exit=True, filters=_combined(filters), limit=_MOST)
    return sorted(history.records(query), key=lambda record: -record.created)


def find(history: BuildHistory, ref: str | None) -> BuildRecord:
    """The build that `ref` means: an id, an id behind names of a builder and a node, `^N`, or the newest."""
    if ref is None or ref.startswith("^"):
        offset = (ref or "^0").removeprefix("^")
        if not offset.isascii() or not offset.isdigit():
            raise UserError(f"invalid offset {ref!r}", hint="^0 is the newest build, ^1 the one before")
        found = newest(history)[int(offset) :]
        if not found:
            raise SourceError("no records found" if ref is None else f"no build found with offset {offset}")
        return found[0]
    found = newest(history, ref=ref.rpartition("/")[2])
    if not found:
        raise SourceError(f"no record found for ref {ref!r}", hint="pybuild history ls shows what there is")
    return found[0]


def _combined(filters: Sequence[str]) -> tuple[str, ...]:
    """docker's filters, all of which must hold, as one of BuildKit's."""
    if not filters:
        return ()
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([_filter(text) for text in filters])
    return (line.getvalue(),)


def _filter(text: str) -> str:
    match = _FILTER.fullmatch(text)
    if match is None:
        raise UserError(f"invalid filter {text!r}", hint="e.g. status=error or startedAt>=24h")
    key, sign, value = match.groups()
    if key in _VALUES and sign in ("=", "!="):
        return f"{key}{sign if sign == '!=' else '==' if key == 'status' else '~='}{value}"
    if key in _COMPARED and sign not in ("=", "!="):
        return text
    if key in (*_VALUES, *_COMPARED):
        allowed = "= and !=" if key in _VALUES else "<, <=, > and >="
        raise UserError(f"invalid filter {text!r}", hint=f"{key} is compared with {allowed}")
    raise UserError(f"unsupported filter {text!r}", hint="the keys are " + ", ".join((*_VALUES, *_COMPARED)))


def name(options: Mapping[str, str]) -> str:
    """What people call a build by its frontend's options: its context or its Dockerfile, and its target."""
    if given := options.get("build-arg:BUILDKIT_BUILD_NAME"):
        return given
    found = options.get("context") or _by_dockerfile(options)
    target = options.get("target", "")
    if target:
        return f"{found} ({target})" if found else target
    return found or options.get("vcs:source", "").partition("#")[0]


def _by_dockerfile(options: Mapping[str, str]) -> str:
    """The last two parts of its path; the directory alone of one with the usual name."""
    parts = [options.get("vcs:localdir:dockerfile", "."), options.get("filename", _DEFAULT)]
    path = [part for part in "/".join(parts).split("/") if part not in ("", ".")]
    if path and path[-1] == _DEFAULT:
        return path[-2] if len(path) > 1 else ""
    return "/".join(path[-2:])


def seconds(duration: float) -> str:
    """`3.2s`, `4m  7s`."""
    if duration < 60:
        return f"{duration:.1f}s"
    return f"{int(duration // 60)}m {int(duration) % 60:2}s"


def moment(when: float, zone: tzinfo | None = UTC) -> str:
    """As Go writes a time into JSON: without zeros at its end. `zone` None is that of this host."""
    whole, nanoseconds = divmod(round(when * 10**9), 10**9)
    text = datetime.fromtimestamp(whole, UTC).astimezone(zone).isoformat()
    fraction = f".{nanoseconds:09}".rstrip("0").rstrip(".")
    place = text[19:]
    return text[:19] + fraction + ("Z" if place == "+00:00" else place)
