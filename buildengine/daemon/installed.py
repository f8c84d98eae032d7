"""Frontends that are packages, installed beside us: entry points of the group `pybuild.frontends`, by name.

Nothing of them is imported here: they run in a sandbox, as build files do, and are found by what their metadata says.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from buildengine.errors import HostError
from buildengine.values import dataclass

GROUP = "pybuild.frontends"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """`entry_point` is `module:attribute`; `location` the directory of the package, or the file of the module."""

    name: str
    entry_point: str
    location: Path


def find(name: str) -> Package | None:
    """None: no package has a frontend of this name. Raises HostError for one that is not there any more."""
    for found in entry_points(group=GROUP, name=name):
        importlib.invalidate_caches()  # it may have come while this process runs
        top = found.module.partition(".")[0]
        spec = find_spec(top)
        places = [*(spec.submodule_search_locations or ()), spec.origin] if spec else []
        if not places or places[0] is None:
            hint = "reinstall the package that the frontend is in"
            raise HostError(f"the frontend {name} is to be in the module {top}, which is not there", hint=hint)
        return Package(name=name, entry_point=found.value, location=Path(places[0]).absolute())
    return None


def names() -> list[str]:
    return sorted(entry_points(group=GROUP).names)
