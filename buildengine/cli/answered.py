"""How the answer to `pybuild build --call` is printed: as `docker buildx build --call` does, and with its status.

An answer is metadata of a result: `result.json` for programs, `result.txt` for people, the `version` of their form, and
`result.statuscode`.

Facts: docker/buildx commands/build.go (printResult), BuildKit frontend/subrequests/lint/lint.go.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from buildengine.cli.questions import Question
from buildengine.errors import BuildError, Location, SourceRange, UserError
from buildengine.values import dataclass
from frontends.dockerfile import answers

_LINT = "lint"
_PRINTED_VERSION = (1, 0, 0)  # the newest form of a linter's answer that is known here


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """What an answer is for who asked. `error` is what the linter met; it comes after the text."""

    text: str
    status: int = 0
    error: BuildError | None = None


def printed(question: Question, answer: Mapping[str, bytes], shown: Mapping[str, str]) -> Printed:
    """What to print of an answer. `shown` are the names under which the user knows files. Raises UserError."""
    status = 0 if question.ignores_status else _number(answer.get("result.statuscode", b"0"))
    document, text = (answer.get(f"result.{form}") for form in ("json", "txt"))
    if document is None and text is None:
        raise UserError(f"the frontend has nothing to print for {question.name}")
    if question.name == _LINT and document is not None:
        return _checked(question, answer, document, shown, status)
    if text is None or (question.is_json and document is not None):
        return Printed(text=_text(document or b"") + "\n", status=status)
    return Printed(text=_text(text), status=status)


def _checked(
    question: Question, answer: Mapping[str, bytes], document: bytes, shown: Mapping[str, str], status: int
) -> Printed:
    """The linter's answer has files under names of its own, so its text is made anew of its document."""
    try:
        found = json.loads(document)
        sources = found.get("sources") or ()
        warnings = [_warning(each, sources, shown) for each in found.get("warnings") or ()]
        failed = found.get("buildError")
        error = _error(failed, sources, shown) if failed else None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as problem:
        raise UserError(f"the frontend's answer cannot be read: {problem}") from None
    if question.is_json:
        text = _text(document) + "\n"
    elif _version(answer.get("version", b"")) > _PRINTED_VERSION and answer.get("result.txt"):
        text = _text(answer["result.txt"])
    else:
        text = answers.printed(warnings)
    if question.is_json:
        return Printed(text=text, status=status, error=error)
    before, behind = _around(len(warnings), failed=error is not None)
    return Printed(text=before + text + behind, status=status, error=error)


def _around(number: int, *, failed: bool) -> tuple[str, str]:
    if not number:
        return "", "" if failed else "Check complete, no warnings found.\n"
    counted = "1 warning has been found!" if number == 1 else f"{number} warnings have been found!"
    return f"Check complete, {counted}\n", "\n" if failed else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Warning:
    """`answers.Printable`: of any frontend, so of rules that are not known here too."""

    rule: str
    url: str
    message: str
    location: Location


def _warning(each: Mapping[str, Any], sources: Any, shown: Mapping[str, str]) -> _Warning:
    return _Warning(
        rule=str(each["ruleName"]),
        url=str(each.get("url", "")),
        message=str(each.get("detail", "")),
        location=_location(each.get("location") or {}, sources, shown),
    )


def _error(failed: Mapping[str, Any], sources: Any, shown: Mapping[str, str]) -> UserError:
    where = _location(failed.get("location") or {}, sources, shown)
    return UserError(str(failed["message"]), locations=(where,) if where.ranges else ())


def _location(said: Mapping[str, Any], sources: Any, shown: Mapping[str, str]) -> Location:
    """solver/pb Location, as Go's encoding/json writes it."""
    index = int(said.get("sourceIndex", 0))
    if index < 0 or not said.get("ranges"):
        return Location(filename="", ranges=())
    source = sources[index]
    name = str(source.get("filename", ""))
    return Location(
        filename=shown.get(name, name),
        ranges=tuple(map(_range, said["ranges"])),
        text=base64.b64decode(source.get("data", "")),
    )


def _range(said: Mapping[str, Any]) -> SourceRange:
    start, end = (int((said.get(each) or {}).get("line", 0)) for each in ("start", "end"))
    return SourceRange(start_line=start, end_line=end)


def _number(text: bytes) -> int:
    return int(text) if text.isdigit() and len(text) < 4 else 0


def _version(text: bytes) -> tuple[int, ...]:
    """`1.2.0`; what is no version is older than any."""
    parts = text.split(b".")
    return tuple(map(_number, parts)) if all(part.isdigit() for part in parts) else ()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
