"""What can be said of an operation beside what it does, as keywords of everything in `llb.state` and `llb.sources`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypedDict

from buildengine.events import ProgressGroup
from llb.names import CUSTOM_NAME
from llb.ops import EMPTY, OpMetadata
from llb.sourcemap import Place
from llb.vertices import About

_NOTHING = About()


class Annotations(TypedDict, total=False):
    """No part of the operation's identity, except `require`."""

    name: str  # what users see; the operation itself otherwise
    description: Mapping[str, str]  # free text for tools
    ignore_cache: bool  # always run
    export_cache: bool | None  # whether the result goes into exported caches; None leaves it to the exporter
    progress_group: ProgressGroup | None  # operations of one group are shown as one step
    place: Place | Sequence[Place]  # where in the user's file this is written
    require: Sequence[str]  # filters of the workers that may run it


_find_place: Callable[[], tuple[Place, ...]] | None = None


def locate_with(find: Callable[[], tuple[Place, ...]]) -> None:
    """From now on, an operation of which nobody says where it is written is where `find` says: in a process that
    executes one build file, the line of it that is being executed."""
    global _find_place
    _find_place = find


def about(annotations: Annotations) -> About:
    """The same, as vertices hold it."""
    if not annotations and _find_place is None:
        return _NOTHING
    description = dict(annotations.get("description", EMPTY))
    if annotations.get("name"):
        description[CUSTOM_NAME] = annotations["name"]
    places = annotations.get("place", ()) or (_find_place() if _find_place is not None else ())
    return About(
        metadata=OpMetadata(
            ignore_cache=annotations.get("ignore_cache", False),
            description=MappingProxyType(description) if description else EMPTY,
            export_cache=annotations.get("export_cache"),
            progress_group=annotations.get("progress_group"),
        ),
        places=(places,) if isinstance(places, Place) else tuple(places),
        require=tuple(annotations.get("require", ())),
    )
