"""An author's `build` in a package that is installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from buildengine.errors import UserError
from frontends.python.result import Build


def installed(entry_point: str) -> Build:
    """What `module:attribute` names, as entry points do: the build function, or something that has it as `build`.

    Raises UserError for what is not there, and whatever the module raises as it is imported.
    """
    name, _, attributes = entry_point.partition(":")
    try:
        found: Any = import_module(name)
        for attribute in filter(None, attributes.split(".")):
            found = getattr(found, attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and not f"{name}.".startswith(f"{error.name}."):
            raise  # what the module itself imports
        raise UserError(
            f"there is no frontend {entry_point}: {error}", hint="it is MODULE or MODULE:ATTRIBUTE"
        ) from None
    build: Build = getattr(found, "build", found)
    return build
