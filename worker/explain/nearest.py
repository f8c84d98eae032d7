"""Which earlier build one is compared with: of those of the same subject the one that is most like it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from cache.explained import Explained, KeptBuild
from worker.explain.causes import Then
from worker.explain.comparison import Comparison
from worker.explain.step import Build, decode

_CANDIDATES = 50  # builds of other subjects that are looked at

Compare = Callable[[Build], Comparison]
"""This build with an earlier one."""


def find(now: Build, kept: Explained, subject: str, compare: Compare) -> tuple[Then, Comparison] | None:
    """The earlier build, and what differs. Of a subject that was never built: another one, if most steps are alike.

    A build without a subject, "", is one of whose files nobody knows where they come from: none is another one then.
    """
    own = [(one, build) for one, build in _decoded(kept.builds(subject)) if subject or _is_like(now, build)]
    if own:
        return _best([(one, compare(build)) for one, build in own], kept, is_elsewhere=False)
    latest = _decoded(kept.latest(_CANDIDATES))
    alike = [(one, compare(build)) for one, build in latest if _is_like(now, build)]
    return _best(alike, kept, is_elsewhere=bool(subject)) if alike else None


def _decoded(found: Sequence[KeptBuild]) -> Iterator[tuple[KeptBuild, Build]]:
    return ((one, build) for one in found if (build := decode(one.data)) is not None)


def _best(
    found: Sequence[tuple[KeptBuild, Comparison]], kept: Explained, *, is_elsewhere: bool
) -> tuple[Then, Comparison]:
    """The most alike; of equals the one whose results were used last, since that is what people remember."""
    least = min(len(comparison.changed) for _, comparison in found)
    equal = [pair for pair in found if len(pair[1].changed) == least]
    if len(equal) > 1:
        equal.sort(key=lambda pair: (kept.last_used(pair[1].changed_keys), pair[0].number), reverse=True)
    one, comparison = equal[0]
    return Then(build=comparison.earlier, made=one.made, is_elsewhere=is_elsewhere), comparison


def _is_like(now: Build, other: Build) -> bool:
    """At least half of the steps say the same. Directories do not count: most have the same name."""
    own = {step.likeness for step in now.steps if step.kind != "local"}
    others = {step.likeness for step in other.steps}
    return bool(own) and 2 * len(own & others) >= len(own)
