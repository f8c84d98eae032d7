"""What the files of a directory have become, in words; and what of it a changed ignore file has done."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from buildengine.events import Cause
from llb.patterns import PatternMatcher
from worker.explain.differences import Difference
from worker.explain.files import FileChange, Listing, changes
from worker.explain.texts import count

MOST = 8  # files that are named
_WORDS = {
    "added": "added", "removed": "removed", "content": "with other content", "mode": "with another mode",
    "owner": "with another owner", "type": "of another type",
}  # fmt: skip
_IGNORED = "ignored now"
_SEEN = "not ignored any more"


def files_changed(
    old: Listing | None, new: Listing | None, excluded: tuple[Sequence[str], Sequence[str]]
) -> Difference:
    """`excluded` are the patterns of the ignore file, then and now."""
    if old is None or new is None:
        missing = "of then" if old is None else "of now"
        return Difference(
            cause=Cause.FILES, text="the files it reads changed", details=(f"there is no list of the files {missing}",)
        )
    found = [_with_reason(change, *excluded) for change in changes(old, new)]
    if not found:
        return Difference(cause=Cause.FILES, text="the files it reads changed in what their list does not show")
    ignored = [change for change in found if change.note in (_IGNORED, _SEEN)]
    if len(ignored) == len(found):
        return Difference(
            cause=Cause.IGNORE_FILE, text=f"the ignore file changed: {_summary(found)}", details=_lines(found)
        )
    return Difference(cause=Cause.FILES, text=_summary(found), details=_lines(found))


def patterns(text: str) -> tuple[str, ...]:
    """Those of the attribute of a local source."""
    try:
        found = json.loads(text or "[]")
    except ValueError:
        return ()
    return tuple([each for each in found if isinstance(each, str)]) if isinstance(found, list) else ()


def _with_reason(change: FileChange, before: Sequence[str], after: Sequence[str]) -> FileChange:
    if before == after or change.what not in ("added", "removed"):
        return change
    was, now = _matches(before, change.path), _matches(after, change.path)
    if change.what == "removed" and now and not was:
        return FileChange(path=change.path, what=change.what, note=_IGNORED)
    if change.what == "added" and was and not now:
        return FileChange(path=change.path, what=change.what, note=_SEEN)
    return change


def _matches(excluded: Sequence[str], path: str) -> bool:
    return bool(excluded) and PatternMatcher(excluded).matches(path)


def _summary(found: Sequence[FileChange]) -> str:
    kinds = Counter(change.what for change in found)
    if len(found) == 1:
        (change,) = found
        return f"1 file {_WORDS[change.what]}: {change.path or '.'}"
    parts = [f"{number} {_WORDS[what]}" for what, number in kinds.items()]
    if len(kinds) == 1:
        return f"{count(len(found), 'file')} {_WORDS[found[0].what]}"
    return f"{count(len(found), 'file')} changed: {', '.join(parts)}"


def _lines(found: Sequence[FileChange]) -> tuple[str, ...]:
    if len(found) == 1 and not found[0].note:
        return ()
    width = max(len(change.what) for change in found[:MOST])
    lines = [
        f"{change.what:<{width}}  {change.path or '.'}" + (f"  ({change.note})" if change.note else "")
        for change in found[:MOST]
    ]
    return (*lines, f"and {len(found) - MOST} more") if len(found) > MOST else tuple(lines)
