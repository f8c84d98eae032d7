"""How much a frontend may leave with the engine: it need not be a friend, and what it gives is kept while it runs."""

from __future__ import annotations

from buildengine.api.rpc import Code, RpcError
from buildengine.units import show_binary_size

DEFINITIONS = 512 << 20  # bytes of all definitions of one frontend; a large Dockerfile's are 1 MiB
WARNINGS = 64 << 20
_EACH = 1 << 10  # what the smallest costs, in bytes


class Allowance:
    """Of one kind of thing, `what`."""

    def __init__(self, what: str, most: int) -> None:
        self._what = what
        self._left = self._most = most

    def take(self, size: int) -> None:
        """One more, of so many bytes. Raises RpcError when it would be too much."""
        self._left -= size + _EACH
        if self._left < 0:
            most = show_binary_size(self._most)
            raise RpcError(Code.RESOURCE_EXHAUSTED, f"the frontend has given more than {most} of {self._what}")
