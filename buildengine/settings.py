"""How a tree of frozen dataclasses is read from layers of values: files, the environment, flags.

The dataclasses are the schema: the metadata of a field says how its value is read. Its name is its key
(`step_memory` is `step-memory`, or `stepMemory` as buildkitd writes its keys) and, with those of the tables
around it, its variable (`PYBUILD_WORKER_STEP_MEMORY`). A key that no field has is an error, with its line and a
suggestion. Knows no setting and reads no environment: `buildengine.config` does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Any

from buildengine.errors import ConfigError, Location, SourceRange, UserError, meant
from buildengine.units import parse_duration, parse_size
from buildengine.values import dataclass

Reader = Callable[[Any], Any]
"""Reads one value. Refuses with a UserError, or with a ValueError that says what it wants."""


def scalar(read: Reader) -> Mapping[str, Any]:
    return {"read": read}


TABLE: Mapping[str, Any] = {"table": True}
"""A table, [worker]: the field's default_factory is its class."""


def tables(cls: type, key: str) -> Mapping[str, Any]:
    """An array of tables, [[worker.gcpolicy]]. A later layer replaces it whole."""
    return {"tables": cls, "key": key}


def named(cls: type, key: str) -> Mapping[str, Any]:
    """Tables whose names the user chooses, [registry."docker.io"]."""
    return {"named": cls, "key": key}


def flag(value: Any) -> bool:
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in words:
        raise ValueError("must be true or false")
    return words[value.lower()]


def count(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("must be a whole number, 0 or more")
    return value


def quantity(value: Any) -> float:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
        return float(value)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e9:
        raise ValueError("must be a number, 0 or more")
    return float(value)


def size(value: Any) -> int:
    return parse_size(value) if isinstance(value, str) else count(value)


def duration(value: Any) -> float:
    return parse_duration(value) if isinstance(value, str) else quantity(value)


def path(value: Any) -> Path:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a path")
    return Path(value)


def strings(value: Any) -> tuple[str, ...]:
    """A list, or (a variable has no lists) one string with commas."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be a list of strings")
    return tuple(value)


def paths(value: Any) -> tuple[Path, ...]:
    return tuple(map(Path, strings(value)))


def one_of(*choices: str) -> Reader:
    def read(value: Any) -> str:
        if value not in choices:
            raise ValueError("must be " + ", ".join(choices[:-1]) + " or " + choices[-1])
        return str(value)

    return read


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Where values come from. Relative paths are relative to `base`; `text` is the file, to name a line in it."""

    name: str
    base: Path
    text: str = ""

    def refuse(self, keys: tuple[str, ...], problem: str, hint: str | None = None) -> ConfigError:
        error = ConfigError(f"{self.name}: {'.'.join(keys)} {problem}", hint=hint)
        return self.at(_line_of(self.text, keys), error)

    def at(self, line: int | None, error: ConfigError) -> ConfigError:
        if line is None:
            return error
        place = SourceRange(start_line=line, end_line=line)
        return error.located(Location(filename=self.name, ranges=(place,), text=self.text.encode()))


def read_toml(cls: type, file: Path, data: bytes) -> dict[str, Any]:
    """The values that a file sets, by field name, with tables as dictionaries. Raises ConfigError."""
    import tomllib  # 5 ms, and most hosts have no file

    try:
        layer = Layer(name=str(file), base=file.absolute().parent, text=data.decode())
        document = tomllib.loads(layer.text)
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not UTF-8 text") from None
    except RecursionError:
        raise ConfigError(f"{file} is not TOML: it is nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).partition(" (at ")
        line = re.match(r"line (\d+)", place)
        problem = ConfigError(f"{file} is not TOML: {message[:1].lower()}{message[1:]}")
        raise layer.at(int(line[1]) if line else None, problem) from None
    return read_table(cls, document, (), layer)


def read_table(cls: type, table: Mapping[str, Any], keys: tuple[str, ...], layer: Layer) -> dict[str, Any]:
    known, values = _keys(cls), {}
    for key, value in table.items():
        item = known.get(key)
        if item is None:
            raise layer.refuse((*keys, key), "is not a known key", _suggestion(key, known))
        if item.name in values:
            raise layer.refuse((*keys, key), "is given twice, in two spellings")
        values[item.name] = _read(item, value, (*keys, key), layer)
    return values


@cache
def _keys(cls: type) -> dict[str, Any]:
    """The fields of `cls` by every spelling of their keys."""
    result = {}
    for item in fields(cls):
        if item.metadata:
            words = item.metadata.get("key", item.name).split("_")
            result["-".join(words)] = item
            result[words[0] + "".join(map(str.capitalize, words[1:]))] = item
    return result


def _read(item: Any, value: Any, keys: tuple[str, ...], layer: Layer) -> Any:
    how = item.metadata
    if "read" in how:
        return _read_scalar(how["read"], value, keys, layer)
    if "tables" in how:
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise layer.refuse(keys, f"must be an array of tables: [[{'.'.join(keys)}]]")
        return tuple(_read_entry(how["tables"], entry, keys, layer) for entry in value)
    if not isinstance(value, dict):
        raise layer.refuse(keys, f"must be a table: [{'.'.join(keys)}]")
    if "table" in how:
        return read_table(item.default_factory, value, keys, layer)
    for name, entry in value.items():
        if not isinstance(entry, dict):
            raise layer.refuse((*keys, name), f'must be a table: [{".".join(keys)}."{name}"]')
    return {name: read_table(how["named"], entry, (*keys, name), layer) for name, entry in value.items()}


def _read_entry(cls: type, table: Mapping[str, Any], keys: tuple[str, ...], layer: Layer) -> Any:
    values = read_table(cls, table, keys, layer)
    for item in fields(cls):
        if item.default is MISSING and item.default_factory is MISSING and item.name not in values:
            raise layer.refuse(keys, f"lacks the key {item.name}")
    return make(cls, values)


def _read_scalar(read: Reader, value: Any, keys: tuple[str, ...], layer: Layer) -> Any:
    try:
        result = read(value)
    except UserError as error:
        raise layer.refuse(keys, f"has an {error.message}", error.hint) from None
    except ValueError as error:
        raise layer.refuse(keys, f"{error}, not {value!r}") from None
    if isinstance(result, Path):
        return layer.base / result
    if isinstance(result, tuple):
        return tuple(layer.base / entry if isinstance(entry, Path) else entry for entry in result)
    return result


def read_environment(cls: Any, prefix: str, environ: Mapping[str, str], base: Path) -> dict[str, Any]:
    """The values that variables set. An unknown variable is not ours: Debian's pybuild(1) reads some as well."""
    values: dict[str, Any] = {}
    for item in fields(cls):
        name = f"{prefix}_{item.name.upper()}"
        if "table" in item.metadata:
            values[item.name] = read_environment(item.default_factory, name, environ, base)
        elif "read" in item.metadata and environ.get(name):
            layer = Layer(name="environment", base=base)
            values[item.name] = _read_scalar(item.metadata["read"], environ[name], (name,), layer)
    return values


def merge(values: dict[str, Any], later: Mapping[str, Any]) -> None:
    """Put `later` over `values`: table by table, value by value."""
    for key, value in later.items():
        if isinstance(value, dict):
            merge(values.setdefault(key, {}), value)
        else:
            values[key] = value


def make(cls: Any, values: Mapping[str, Any]) -> Any:
    """The tree of dataclasses that holds `values`, and the defaults where there is none."""
    arguments = dict(values)
    for item in fields(cls):
        if item.name in values and "table" in item.metadata:
            arguments[item.name] = make(item.default_factory, values[item.name])
        elif item.name in values and "named" in item.metadata:
            inner = item.metadata["named"]
            arguments[item.name] = {name: make(inner, entry) for name, entry in values[item.name].items()}
    return cls(**arguments)


def _suggestion(key: str, known: Mapping[str, Any]) -> str:
    close = meant(key, known)
    if close:
        return f"did you mean {close}?"
    return "the keys here are " + ", ".join(key for key in known if key.islower())


_KEY_PART = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*(\.)?""")


def _line_of(text: str, keys: tuple[str, ...]) -> int | None:
    """The line that sets `keys`: tomllib does not tell, and a plain reading finds it in any ordinary file."""
    header: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        is_header = line.lstrip().startswith("[")
        parts = _key_parts(line.lstrip().lstrip("["))
        header = parts if is_header else header
        found = parts if is_header else header + parts
        if parts and found[: len(keys)] == keys:
            return number
    return None


def _key_parts(text: str) -> tuple[str, ...]:
    parts, position = [], 0
    while match := _KEY_PART.match(text, position):
        parts.append(match[1] or match[2] or match[3] or "")
        position = match.end()
        if not match[4]:
            break
    return tuple(parts)
