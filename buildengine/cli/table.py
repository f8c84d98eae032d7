"""Lists for people and programs: a table, JSON lines, or a template with docker's `{{.Field}}`.

Of Go's template language only fields are understood, `{{.Name}}`, `{{json .Name}}` and `{{(index .Name "key").Name}}`:
the rest is refused, not misread. Knows nothing of what is listed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from buildengine.cli.progress.lines import safe
from buildengine.errors import UserError

Row = Mapping[str, Any]
"""The fields of one entry: strings, or what JSON can say."""

Keys = tuple[str, ...]
"""A way into what is shown: `.A.B` is ("A", "B"), `.` is ()."""

_PATH = r"\.[A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*"
_INDEX = rf'index\s+({_PATH})\s+"([^"\\]*)"'
_FIELD = re.compile(rf"\{{\{{\s*(json\s+)?(?:({_PATH})|{_INDEX}|\(\s*{_INDEX}\s*\)((?:\.[A-Za-z0-9_]+)*))\s*\}}\}}")
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
    lines = (fill(template, partial(_field, row, headers)) for row in rows)
    if not format.startswith("table "):
        yield from lines
        return
    head = fill(template, partial(_field, headers, headers))
    yield from align([head, *lines])


def fill(template: str, look_up: Callable[[Keys], Any], *, indent: int | None = None) -> str:
    """`template` with its fields looked up. Raises UserError for what else is in braces."""
    asked_for(template)

    def replacement(match: re.Match[str]) -> str:
        found = look_up(_keys(match))
        plain = not match[1] and isinstance(found, str | bool | int | float | None)
        return _plain(found) if plain else _json(found, indent)

    return _FIELD.sub(replacement, template)


def asked_for(template: str) -> list[Keys]:
    """The fields in `template`. Raises UserError for what else is in braces."""
    if "{{" in _FIELD.sub("", template):
        raise UserError(
            f"the template {template!r} is not understood",
            hint='it may hold {{.Field}}, {{json .Field}} and {{(index .Field "key").Field}}',
        )
    return [_keys(match) for match in _FIELD.finditer(template)]


def _keys(match: re.Match[str]) -> Keys:
    path, key, rest = match[2] or match[3] or match[5], match[4] or match[6], match[7] or ""
    steps = tuple(filter(None, path.split(".")))
    return steps if match[2] else (*steps, key or "", *filter(None, rest.split(".")))


def at(document: Any, keys: Keys) -> Any:
    """What `keys` lead to in a JSON document; Go's name of a field, `DiffIDs`, finds `diff_ids`. Raises UserError."""
    for key in keys:
        names = document if isinstance(document, Mapping) else {}
        name = key if key in names else next((name for name in names if _as_in_go(name) == _as_in_go(key)), None)
        if name is None:
            raise UserError(
                f"there is no field {'.'.join(keys)!r}: no {key!r}",
                hint=f"the fields there are {', '.join(map(str, names)) or 'none'}",
            )
        document = names[name]
    return document


def _as_in_go(name: str) -> str:
    return name.replace("_", "").replace(".", "").lower()


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


def _field(row: Row, headers: Mapping[str, str], keys: Keys) -> Any:
    field = ".".join(keys)
    if not field:
        return dict(row)
    if field not in headers:
        raise UserError(f"there is no field {field!r}", hint="the fields are " + ", ".join(headers))
    return row[field]


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else safe(str(value))


def _json(value: Any, indent: int | None = None) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, indent=indent)
