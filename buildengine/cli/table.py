"""Lists for people and programs: a table, JSON lines, or a template with docker's `{{.Field}}`.

Of Go's template language only fields are understood, `{{.Name}}` and `{{json .Name}}`: the rest is refused, not
misread. Knows nothing of what is listed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from buildengine.cli.progress.lines import safe
from buildengine.errors import UserError

Row = Mapping[str, Any]
"""The fields of one entry: strings, or what JSON can say."""

_FIELD = re.compile(r"\{\{\s*(json\s+)?\.([A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*)\s*\}\}")
_NARROWEST, _GAP = 10, 3  # docker's: a column has at least ten places, three of them empty


def render(rows: Iterable[Row], headers: Mapping[str, str], shown: Sequence[str], format: str | None) -> Iterator[str]:
    """The lines that list `rows`. `headers` are the columns by field, `shown` those of the plain table.

    `format` is None or "table", "json", a template, or "table" and a template.
    """
    if format == "json":
        yield from (_json(row) for row in rows)
        return
    if format in (None, "", "table"):
        format = "table " + "\t".join(f"{{{{.{field}}}}}" for field in shown)
    assert format is not None
    template = format.removeprefix("table ").replace("\\t", "\t").replace("\\n", "\n")
    lines = (fill(template, lambda field, row=row: _field(row, headers, field)) for row in rows)  # type: ignore[misc]
    if not format.startswith("table "):
        yield from lines
        return
    head = fill(template, lambda field: _field(headers, headers, field))
    yield from align([head, *lines])


def fill(template: str, look_up: Callable[[str], Any]) -> str:
    """`template` with its fields looked up. Raises UserError for what else is in braces."""
    if "{{" in _FIELD.sub("", template):
        raise UserError(
            f"the template {template!r} is not understood", hint="it may hold {{.Field}} and {{json .Field}}"
        )

    def replacement(match: re.Match[str]) -> str:
        found = look_up(match[2])
        return _json(found) if match[1] or not isinstance(found, str | bool | int | float | None) else _plain(found)

    return _FIELD.sub(replacement, template)


def align(lines: Iterable[str]) -> Iterator[str]:
    """Lines of cells, parted by tabs, in columns."""
    rows = [line.split("\t") for line in lines]
    columns = max(map(len, rows), default=0)
    widths = [
        max(_NARROWEST, _GAP + max((len(row[place]) for row in rows if place < len(row) - 1), default=0))
        for place in range(columns)
    ]
    for row in rows:
        yield "".join([*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)), row[-1]]).rstrip()


def _field(row: Row, headers: Mapping[str, str], field: str) -> Any:
    if not field:
        return dict(row)
    if field not in headers:
        raise UserError(f"there is no field {field!r}", hint="the fields are " + ", ".join(headers))
    return row[field]


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else safe(str(value))


def _json(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)
