"""Which step of an earlier build a step is to be compared with: the two lists are compared as files are.

What says the same is the same step; between such, what stands in the place of another one is that one, edited; what is
left has come or gone. A step whose like stood elsewhere is that one, moved.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from difflib import SequenceMatcher

from worker.explain.step import Step

_MOST_ALIKE = 100_000  # pairs of texts that are compared with each other: 0.5 s; of more the first ones are taken
_COMPARED = 200  # characters of each


def pairs(new: Sequence[Step], old: Sequence[Step]) -> dict[int, int]:
    """Positions in `new`, each with the position in `old` of what it is compared with; nothing of what is new."""
    found: dict[int, int] = {}
    likeness_new, likeness_old = [step.likeness for step in new], [step.likeness for step in old]
    matcher = SequenceMatcher(None, likeness_new, likeness_old, autojunk=False)
    blocks = matcher.get_opcodes()
    for tag, start, end, start_old, end_old in blocks:
        if tag == "equal":
            found.update(zip(range(start, end), range(start_old, end_old), strict=True))
    for key in (lambda step: step.likeness, lambda step: step.core, lambda step: (step.kind, step.text)):
        _match(found, new, old, key)
    for tag, start, end, start_old, end_old in blocks:
        if tag == "replace":
            _in_place(found, new, old, range(start, end), range(start_old, end_old))
    _images(found, new, old)
    _shared(found, new, old)
    return found


def _match(found: dict[int, int], new: Sequence[Step], old: Sequence[Step], key: Callable[[Step], Hashable]) -> None:
    """Those that agree in `key`, in order, among what is not paired yet."""
    taken = set(found.values())
    free: dict[Hashable, list[int]] = defaultdict(list)
    for position, step in enumerate(old):
        if position not in taken:
            free[key(step)].append(position)
    for position, step in enumerate(new):
        if position not in found and free[key(step)]:
            found[position] = free[key(step)].pop(0)


def _in_place(found: dict[int, int], new: Sequence[Step], old: Sequence[Step], here: range, there: range) -> None:
    """Of two stretches that stand in each other's place, the steps of one kind, in order: as many as there are there.

    Where more have come than gone, those are taken for edited that share most with what is gone.
    """
    taken = set(found.values())
    for kind in dict.fromkeys(new[position].kind for position in here):
        free = [n for n in there if n not in taken and old[n].kind == kind]
        waiting = [n for n in here if n not in found and new[n].kind == kind]
        if free and len(waiting) > len(free) and len(waiting) * len(free) <= _MOST_ALIKE:
            waiting = _most_alike(waiting, free, new, old)
        found.update(zip(waiting, free, strict=False))


def _most_alike(waiting: Sequence[int], free: Sequence[int], new: Sequence[Step], old: Sequence[Step]) -> list[int]:
    """As many of those that wait as are free, in their order."""
    best = dict.fromkeys(waiting, 0.0)
    for there in free:
        matcher = SequenceMatcher(None, "", old[there].text[:_COMPARED])
        for here in waiting:
            matcher.set_seq1(new[here].text[:_COMPARED])
            best[here] = max(best[here], matcher.quick_ratio())
    return sorted(sorted(waiting, key=best.__getitem__)[-len(free) :])


def _images(found: dict[int, int], new: Sequence[Step], old: Sequence[Step]) -> None:
    """An image of which something is made that was made of another image stands in the place of that one, though that
    may be there as well."""
    for position in [*found]:
        for one, before in zip(new[position].inputs, old[found[position]].inputs, strict=False):
            if one.step < 0 or before.step < 0 or one.step in found:
                continue
            if new[one.step].kind == old[before.step].kind == "image":
                found[one.step] = before.step


def _shared(found: dict[int, int], new: Sequence[Step], old: Sequence[Step]) -> None:
    """A step that is there once more, for another platform, is compared with the one that was there."""
    known = {step.core: position for position, step in enumerate(old)}
    for position, step in enumerate(new):
        like = known.get(step.core)
        if position not in found and like is not None:
            found[position] = like
