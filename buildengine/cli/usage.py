"""Cache records for the eye, shared by `du` and `prune`: their fields, and the filters that select them.

Facts: docker/buildx commands/diskusage.go and prune.go.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from buildengine.builder import UsageInfo
from buildengine.cli.progress.lines import safe
from buildengine.errors import UserError
from buildengine.units import parse_duration, show_duration, show_size

HEADERS = {
    "ID": "ID",
    "Parents": "PARENTS",
    "CreatedAt": "CREATED AT",
    "Mutable": "MUTABLE",
    "Reclaimable": "RECLAIMABLE",
    "Shared": "SHARED",
    "Size": "SIZE",
    "Description": "DESCRIPTION",
    "UsageCount": "USAGE COUNT",
    "LastUsedAt": "LAST ACCESSED",
    "Type": "TYPE",
}
SHOWN = ("ID", "Reclaimable", "Size", "LastUsedAt")


def row(record: UsageInfo, *, marked: bool = False) -> dict[str, Any]:
    """The fields of `record`. `marked`: a star says in a table what is mutable or shared."""
    return {
        "ID": record.id + ("*" if marked and record.mutable else ""),
        "Parents": list(record.parents),
        "CreatedAt": moment(record.created),
        "Mutable": record.mutable,
        "Reclaimable": not record.in_use,
        "Shared": record.shared,
        "Size": show_size(record.size) + ("*" if marked and record.shared else ""),
        "Description": record.description,
        "UsageCount": record.usage_count,
        "LastUsedAt": ago(record.last_used),
        "Type": record.kind,
    }


def paragraph(record: UsageInfo) -> Iterator[str]:
    """Everything about `record`, a line each."""
    found = row(record)
    found["Parents"] = ", ".join(record.parents)
    titles = {"UsageCount": "Usage count", "LastUsedAt": "Last used", "CreatedAt": "Created at"}
    for field, value in found.items():
        text = str(value).lower() if isinstance(value, bool) else safe(str(value))
        if text:
            yield f"{titles.get(field, field) + ':':<14}{text}"
    yield ""


def summary(records: Sequence[UsageInfo]) -> Iterator[str]:
    total = sum(record.size for record in records)
    shared = sum(record.size for record in records if record.shared)
    if shared:
        yield f"{'Shared:':<14}{show_size(shared)}"
        yield f"{'Private:':<14}{show_size(total - shared)}"
    yield f"{'Reclaimable:':<14}{show_size(sum(record.size for record in records if not record.in_use))}"
    yield f"{'Total:':<14}{show_size(total)}"


def ago(seconds: float | None) -> str:
    return "" if seconds is None else f"{show_duration(time.time() - seconds)} ago"


def moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC", time.gmtime(seconds))


def to_filters(values: Sequence[str]) -> tuple[tuple[str, ...], float]:
    """`--filter` in docker's words as BuildKit's filters (all must match), and the seconds of `until`."""
    conditions, until = [], 0.0
    for value in values:
        key, equals, wanted = value.partition("=")
        if not key:
            raise UserError(f"--filter {value}: the filter has no key", hint="e.g. type=exec.cachemount or until=24h")
        if key in ("until", "unused-for"):
            until = parse_duration(wanted)
        elif not equals:
            conditions.append(key)
        elif key == "id":
            conditions.append(f"id~={wanted}")
        elif key.endswith(("!", "~")) or wanted.startswith("="):  # already as BuildKit writes it
            conditions.append(value)
        else:
            conditions.append(f"{key}=={wanted}")
    return ((",".join(conditions),) if conditions else ()), until
