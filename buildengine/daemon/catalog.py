"""The frontends of an engine, by name, but for those that its configuration disables."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from buildengine.builder import PYTHON
from buildengine.config import Config, FrontendConfig
from buildengine.errors import UserError, meant
from frontends import catalog
from frontends.gateway import Frontend

if TYPE_CHECKING:  # who builds here needs none
    from buildengine.api.daemon import WorkerInfo
    from buildengine.daemon.installed import Package
    from worker.runtime.runtime import Runtime

_USUAL = FrontendConfig()


class Catalog:
    """`worker` is what frontends outside of this process are told of the machine, `runtime` runs them."""

    def __init__(
        self, config: Config, worker: Callable[[], WorkerInfo], runtime: Callable[[], Awaitable[Runtime]]
    ) -> None:
        self._config = config
        self._worker = worker
        self._runtime = runtime

    def find(self, name: str) -> Frontend:
        """Raises UserError for one that there is not or that no build may use."""
        rules = self._config.frontends.get(name, _USUAL)
        if not rules.enabled:
            raise UserError(f"invalid frontend: {name}", hint="the configuration of the build daemon disables it")
        if name == "gateway.v0":
            from buildengine.daemon.frontend_images import ImageFrontend  # few builds run one

            return ImageFrontend(self._worker, self.find, rules.allowed_repositories)
        if name == PYTHON:
            return self._python()
        return catalog.find(name) if name in catalog.NAMES else self._installed(name)

    def _installed(self, name: str) -> Frontend:
        from buildengine.daemon import installed

        package = installed.find(name)
        if package is not None:
            return self._python(package)
        known = (*catalog.NAMES, "gateway.v0", PYTHON, *installed.names())
        close = meant(name, known)
        others = f"there are {', '.join(known)}; others are packages, installed where the engine is"
        raise UserError(f"invalid frontend: {name}", hint=f"did you mean {close}?" if close else others)

    def _python(self, package: Package | None = None) -> Frontend:
        from buildengine.daemon.pythonfrontend import Limits, PythonFrontend

        return PythonFrontend(self._runtime, self._worker, Limits.of(self._config.worker), package)
