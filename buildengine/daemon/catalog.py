"""The frontends of an engine, by name, but for those that its configuration disables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from buildengine.config import FrontendConfig
from buildengine.errors import UserError
from frontends import catalog
from frontends.gateway import Frontend

if TYPE_CHECKING:  # who builds here needs none
    from buildengine.api.daemon import WorkerInfo

_USUAL = FrontendConfig()


class Catalog:
    """`worker` is what frontends outside of this process are told of the machine."""

    def __init__(self, config: Mapping[str, FrontendConfig], worker: Callable[[], WorkerInfo]) -> None:
        self._config = config
        self._worker = worker

    def find(self, name: str) -> Frontend:
        """Raises UserError for one that there is not or that no build may use."""
        rules = self._config.get(name, _USUAL)
        if not rules.enabled:
            raise UserError(f"invalid frontend: {name}", hint="the configuration of the build daemon disables it")
        if name == "gateway.v0":
            from buildengine.daemon.frontend_images import ImageFrontend  # few builds run one

            return ImageFrontend(self._worker, self.find, rules.allowed_repositories)
        return catalog.find(name)
