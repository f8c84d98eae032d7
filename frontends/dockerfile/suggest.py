"""The nearest name to a mistyped one: at most two edits away, as BuildKit suggests. Pure."""

from __future__ import annotations

from collections.abc import Iterable

_FURTHEST = 2
_LONGEST = 100  # nobody mistypes more than that, and the distance costs the product of the lengths


def nearest(name: str, options: Iterable[str], *, case_sensitive: bool = True) -> str | None:
    """The option to suggest for `name`, in the case of `name` when case does not matter; None when none is near."""
    wanted = name if case_sensitive else name.lower()
    best, distance = None, _FURTHEST + 1
    for option in sorted(set(options)):
        candidate = option if case_sensitive else option.lower()
        if candidate == wanted:
            return None  # an exact match: the mistake is elsewhere
        found = _distance(wanted, candidate, distance)
        if found < distance:
            best, distance = candidate, found
    if best is None or case_sensitive:
        return best
    return best.upper() if name.isupper() else best


def did_you_mean(name: str, options: Iterable[str], *, case_sensitive: bool = True, prefix: str = "") -> str:
    """` (did you mean x?)`, or nothing."""
    found = nearest(name, options, case_sensitive=case_sensitive)
    return f" (did you mean {prefix}{found}?)" if found else ""


def also_near(name: str, options: Iterable[str], *, prefix: str = "") -> str:
    """`did you mean x? `, to begin a hint with, where BuildKit's distance leads to another option or to none.

    It counts two letters that were swapped as two mistakes (`RNU` is as near to ENV as to RUN), and does not see a name
    that was left unfinished.
    """
    options = sorted(set(options))
    word = name.lower()
    swapped = [option for option in options if _is_swapped(word, option.lower())]
    begun = [option for option in options if len(word) > 2 and option.lower().startswith(word)]
    found = next((each[0] for each in (swapped, begun) if len(each) == 1), "")
    suggested = nearest(name, options, case_sensitive=False)
    return f"did you mean {prefix}{found}? " if found and found.lower() != (suggested or "").lower() else ""


def _is_swapped(a: str, b: str) -> bool:
    """Whether two neighbours in the one are the other way round in the other."""
    different = [place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y]
    if len(a) != len(b) or len(different) != 2 or different[1] != different[0] + 1:
        return False
    first, second = different
    return (a[first], a[second]) == (b[second], b[first])


def _distance(a: str, b: str, bound: int) -> int:
    """The edits between `a` and `b`, or at least `bound` when there are as many."""
    if abs(len(a) - len(b)) >= bound or max(len(a), len(b)) > _LONGEST:
        return bound
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]
