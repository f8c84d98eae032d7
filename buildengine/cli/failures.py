"""Several things asked for in one command: the rest is still done when one of them fails."""

from __future__ import annotations

from buildengine.errors import BuildError, SolveError


class Failures:
    """`with failures:` keeps a BuildError for later; `raise_any` raises them as one."""

    def __init__(self) -> None:
        self._errors: list[BuildError] = []

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, BuildError):
            return False
        self._errors.append(error)
        return True

    def raise_any(self) -> None:
        if len(self._errors) == 1:
            raise self._errors[0]
        if self._errors:
            raise SolveError(tuple(self._errors))
