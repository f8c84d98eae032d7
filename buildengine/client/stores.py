"""The content stores that a client offers: which of them a call is for, its metadata says.

Facts: BuildKit session/content (the header), client/solve.go (`export`, `oci:NAME`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from buildengine.api import rpc
from buildengine.api.content import EXPORT, EXPORT_ID, INFO, LAYOUT, READ, STORE_ID, Content
from buildengine.api.rpc import Code, Metadata, RpcError
from buildengine.ocilayout import DiskLayout

_NONE: Mapping[int, rpc.Services] = MappingProxyType({})


class Stores:
    """`layouts` are directories to build from, by name; `exports` take the blobs of layouts that are built, by the
    numbers of the exports."""

    def __init__(self, layouts: Mapping[str, Path] | None = None, exports: Mapping[int, rpc.Services] = _NONE) -> None:
        self._exports = exports
        self._stores: dict[str, rpc.Services] = {}
        for name, path in (layouts or {}).items():
            services = Content(DiskLayout(path)).services
            self._stores[f"{LAYOUT}{name}"] = {path: services[path] for path in (INFO, READ)}

    @property
    def paths(self) -> tuple[str, ...]:
        offered = (*self._exports.values(), *self._stores.values())
        return tuple(dict.fromkeys(path for services in offered for path in services))

    def method(self, path: str, metadata: Metadata) -> rpc.Method[Any, Any] | None:
        """Raises RpcError for a store that nobody offers."""
        name = next(iter(rpc.values(metadata, STORE_ID)), "")
        if name == EXPORT and self._exports:
            return self._export(rpc.value(metadata, EXPORT_ID, "")).get(path)
        if name not in self._stores:
            raise RpcError(Code.NOT_FOUND, f"unknown store {name!r}")
        return self._stores[name].get(path)

    def _export(self, number: str) -> rpc.Services:
        """BuildKit's daemons do not say which, since its clients have one a build."""
        if len(self._exports) == 1:
            return next(iter(self._exports.values()))
        if not number.isdigit() or int(number) not in self._exports:
            raise RpcError(Code.INVALID_ARGUMENT, "this daemon sends one OCI layout a build: leave one with tar=false")
        return self._exports[int(number)]
