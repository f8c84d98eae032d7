"""The content stores that a client offers: which of them a call is for, its metadata says.

Facts: BuildKit session/content (the header), client/solve.go (`export`, `oci:NAME`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from buildengine.api import rpc
from buildengine.api.content import EXPORT, INFO, LAYOUT, READ, STORE_ID, Content
from buildengine.api.rpc import Code, Metadata, RpcError
from buildengine.ocilayout import DiskLayout

_NONE: rpc.Services = {}


class Stores:
    """`layouts` are directories to build from, by name; `export` takes the blobs of a layout that is built."""

    def __init__(self, layouts: Mapping[str, Path] | None = None, export: rpc.Services = _NONE) -> None:
        self._stores: dict[str, rpc.Services] = {EXPORT: export} if export else {}
        for name, path in (layouts or {}).items():
            services = Content(DiskLayout(path)).services
            self._stores[f"{LAYOUT}{name}"] = {path: services[path] for path in (INFO, READ)}

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(path for services in self._stores.values() for path in services))

    def method(self, path: str, metadata: Metadata) -> rpc.Method[Any, Any] | None:
        """Raises RpcError for a store that nobody offers."""
        name = next(iter(rpc.values(metadata, STORE_ID)), "")
        if name not in self._stores:
            raise RpcError(Code.NOT_FOUND, f"unknown store {name!r}")
        return self._stores[name].get(path)
