"""`pybuild build --call`: what a frontend is asked instead of a build.

Facts: docker/buildx util/buildflags/callfunc.go, build/build.go.
"""

from __future__ import annotations

from collections.abc import Mapping

from buildengine.cli.flags import is_false, is_true, split_csv
from buildengine.errors import UserError
from buildengine.values import dataclass

_CAPABILITY = "moby.buildkit.frontend.subrequests+forward"
_ALIASES = {"check": "lint"}
_BUILD = "build"
_FORMATS = ("json", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """`name` as frontends call it, without `frontend.`: lint, outline, targets, subrequests.describe, ..."""

    name: str
    is_json: bool = False
    ignores_status: bool = False

    @property
    def options(self) -> Mapping[str, str]:
        """What makes a question of a build."""
        return {"requestid": f"frontend.{self.name}", "frontend.caps": _CAPABILITY}


CHECK = Question(name="lint")


def parse(text: str) -> Question | None:
    """`METHOD[,format=json][,ignorestatus=true]`; None is a build. Raises UserError."""
    names, fields = [], {}
    for part in split_csv(text) if text else ():
        key, equals, value = part.partition("=")
        if equals:
            fields[key] = value
        else:
            names.append(part)
    if len(names) > 1 or fields.keys() - {"format", "ignorestatus"}:
        raise UserError(f"{text!r} is not METHOD[,format=json][,ignorestatus=true]", hint="e.g. check,format=json")
    form, ignored = fields.get("format", "text"), fields.get("ignorestatus", "false")
    if form not in _FORMATS:
        raise UserError(f"unknown format {form!r}", hint=f"the formats are {', '.join(_FORMATS)}")
    if not (is_true(ignored) or is_false(ignored)):
        raise UserError(f"ignorestatus is true or false, not {ignored!r}")
    name = "".join(names) or _BUILD
    if name == _BUILD:
        return None
    return Question(name=_ALIASES.get(name, name), is_json=form == "json", ignores_status=is_true(ignored))
