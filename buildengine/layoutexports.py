"""Exports with `tar=false` of a build on a daemon: the client gets their blobs and writes all else of a layout itself.

For that it needs to know what the exporter has said of its image. BuildKit's response is one for all exports, and its
clients have at most one with `tar=false`. When there are several, and only then, what each of them has said stands
in the response too, under names with its number: `export/2/containerimage.descriptor`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from buildengine.builder import Export

_NUMBERED = re.compile(r"export/(\d+)/(.*)", re.DOTALL)

Response = Mapping[str, str]


def is_layout(export: Export) -> bool:
    return export.type in ("oci", "docker") and export.attrs.get("tar", "").lower() in ("false", "0", "f")


def with_each(response: Response, exports: Sequence[Export], said: Sequence[Response]) -> Response:
    """The response of a daemon, with what each layout's exporter has said where there are several."""
    layouts = [number for number, export in enumerate(exports) if is_layout(export)]
    if len(layouts) < 2:
        return response
    own = {f"export/{number}/{name}": value for number in layouts for name, value in said[number].items()}
    return {**response, **own}


def apart(response: Response, numbers: Sequence[int]) -> tuple[Response, Mapping[int, Response]]:
    """The response as it is without a daemon, and what the exporters with these numbers have said."""
    if len(numbers) < 2:
        return response, dict.fromkeys(numbers, response)
    common: dict[str, str] = {}
    own: dict[int, dict[str, str]] = {number: {} for number in numbers}
    for name, value in response.items():
        numbered = _NUMBERED.fullmatch(name)
        if numbered is not None and int(numbered[1]) in own:
            own[int(numbered[1])][numbered[2]] = value
        else:
            common[name] = value
    return common, own
