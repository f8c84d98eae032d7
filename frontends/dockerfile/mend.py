"""What the linter finds and a machine can mend: the same image from a tidier Dockerfile.

Only what leaves every instruction with its meaning is mended: cases of keywords and of stage names, blank lines inside
of instructions, `ENV key value`, parts of EXPOSE that mean nothing, a platform that is the default. The result is read
again and compared; were it to mean something else, the file would stay as it is. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from buildengine.errors import BuildError, ParseError
from buildengine.values import dataclass
from frontends.dockerfile import instructions as ins
from frontends.dockerfile import lines, parse
from frontends.dockerfile.directives import BOM
from frontends.dockerfile.lines import LogicalLine, SourceFile
from frontends.dockerfile.lint import Finding
from frontends.dockerfile.terminals import SPACES
from frontends.dockerfile.words import Lexer

_ROUNDS = 3  # `from x AS y` becomes `FROM x AS y` at once, `from x as y` in two
_PLATFORM = re.compile(r"--platform=\S+\s+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Characters `start` to `end` of a physical line (from 1) become `text`; None takes the whole line away."""

    line: int
    start: int = 0
    end: int = 0
    text: str | None = None


Mender = Callable[[Any], Iterable[Edit]]  # one for the instruction that the rule is about


def mend(file: SourceFile, check: Callable[[SourceFile], Sequence[Finding]]) -> bytes:
    """The file with all that can be mended, or as it was. `check` tells what is to be mended."""
    data = file.data
    for _ in range(_ROUNDS):
        current = replace(file, data=data)
        mended = _once(current, check(current))
        if mended == data:
            break
        data = mended
    return data if _meanings(file) == _meanings(replace(file, data=data)) else file.data


def _once(file: SourceFile, findings: Sequence[Finding]) -> bytes:
    try:
        dockerfile = lines.split(file)
        instructions = {i.line.first: i for i in parse.instructions(dockerfile)}
    except BuildError:  # who cannot be read cannot be mended
        return file.data
    edits: dict[tuple[int, int], Edit] = {}
    for finding in findings:
        mender = _MENDERS.get(finding.rule)
        found = _instruction_at(finding, instructions)
        for edit in mender(found) if mender and found else ():
            edits.setdefault((edit.line, edit.start), edit)
    return _applied(file.data, edits.values())


def _instruction_at(finding: Finding, instructions: Mapping[int, ins.Instruction]) -> ins.Instruction | None:
    line = finding.location.ranges[0].start_line if finding.location.ranges else 0
    if finding.rule == "NoEmptyContinuation":  # it is told at the last line
        return next((i for i in instructions.values() if i.line.first <= line <= i.line.last), None)
    return instructions.get(line)


def _applied(data: bytes, edits: Iterable[Edit]) -> bytes:
    mark = BOM if data.startswith(BOM) else b""
    physical = data.removeprefix(BOM).decode("utf-8", "surrogateescape").split("\n")
    for edit in sorted(edits, key=lambda each: (each.line, each.start), reverse=True):
        if edit.text is None:
            del physical[edit.line - 1]
        else:
            text = physical[edit.line - 1]
            physical[edit.line - 1] = text[: edit.start] + edit.text + text[edit.end :]
    return mark + "\n".join(physical).encode("utf-8", "surrogateescape")


def _at(line: LogicalLine, start: int, end: int, text: str) -> Iterator[Edit]:
    """An edit of the instruction's text, where that stands on one physical line."""
    found = [r for r in line.locate(start, end).ranges if r.end_column]
    if len(found) == 1 and found[0].end_column - found[0].start_column == end - start:
        yield Edit(line=found[0].start_line, start=found[0].start_column, end=found[0].end_column, text=text)


# --- one function for each rule ---------------------------------------------------------------------------------


def _keyword(instruction: ins.Instruction) -> Iterator[Edit]:
    keyword = instruction.keyword
    start = instruction.line.text.find(keyword)
    other = keyword.lower() if keyword.isupper() else keyword.upper()
    if not keyword.isupper() and not keyword.islower():
        return  # neither case is known to be that of the others
    yield from _at(instruction.line, start, start + len(keyword), other)


def _as(instruction: ins.From) -> Iterator[Edit]:
    text = instruction.line.text.rstrip(SPACES)
    end = len(text) - len(instruction.stage_name)
    start = text.rfind(instruction.as_keyword, 0, end)
    wanted = instruction.as_keyword.lower() if instruction.keyword.islower() else instruction.as_keyword.upper()
    yield from _at(instruction.line, start, start + len(wanted), wanted)


def _stage_name(instruction: ins.From) -> Iterator[Edit]:
    end = len(instruction.line.text.rstrip(SPACES))
    yield from _at(instruction.line, end - len(instruction.stage_name), end, instruction.stage_name.lower())


def _platform(instruction: ins.From) -> Iterator[Edit]:
    flag = _PLATFORM.search(instruction.line.text)
    if flag is not None:
        yield from _at(instruction.line, flag.start(), flag.end(), "")


def _blank_lines(instruction: ins.Instruction) -> Iterator[Edit]:
    line = instruction.line
    physical = line.source.data.removeprefix(BOM).split(b"\n")
    for number in range(line.pieces[0][1], line.pieces[-1][1]):
        if not physical[number - 1].strip():
            yield Edit(line=number)


def _legacy(instruction: ins.PairInstruction) -> Iterator[Edit]:
    """Not where quotes or escapes may mean something."""
    (pair,) = instruction.pairs
    value = pair.value or ""
    text = instruction.line.text.rstrip(SPACES)
    if len(instruction.line.pieces) == 1 and not re.search("[\"'`\\\\]", value) and text.endswith(value):
        start = text.index(pair.key, len(instruction.keyword))
        quoted = f'"{value}"' if re.search(r"\s", value) else value
        yield from _at(instruction.line, start, len(text), f"{pair.key}={quoted}")


def _ports(instruction: ins.Expose) -> Iterator[Edit]:
    for found in re.finditer(r"\S+", instruction.line.text):
        word = found[0]
        tidy = _tidy_port(word)
        if word in instruction.arguments and tidy != word:
            yield from _at(instruction.line, found.start(), found.end(), tidy)


def _tidy_port(word: str) -> str:
    """`80/tcp` of `127.0.0.1:8080:80/TCP`."""
    return word if "$" in word else word.rpartition(":")[2].lower()


_MENDERS: Mapping[str, Mender] = MappingProxyType({
    "ConsistentInstructionCasing": _keyword,
    "ExposeInvalidFormat": _ports,
    "ExposeProtoCasing": _ports,
    "FromAsCasing": _as,
    "LegacyKeyValueFormat": _legacy,
    "NoEmptyContinuation": _blank_lines,
    "RedundantTargetPlatform": _platform,
    "StageNameCasing": _stage_name,
})  # fmt: skip
MENDABLE = frozenset(_MENDERS)


# --- what a file means ------------------------------------------------------------------------------------------


def _meanings(file: SourceFile) -> list[object] | None:
    try:
        dockerfile = lines.split(file)
        return [meaning(i, dockerfile.escape) for i in parse.instructions(dockerfile)]
    except BuildError:
        return None


def meaning(instruction: ins.Instruction, escape: str = "\\") -> object:
    """What two instructions have in common that do the same."""
    name, bodies = instruction.name, instruction.line.heredocs
    match instruction:
        case ins.From():
            platform = instruction.platform.strip("${}")
            default = platform == "TARGETPLATFORM"
            return name, instruction.image, instruction.stage_name.lower(), "" if default else instruction.platform
        case ins.PairInstruction():
            lexer = Lexer(escape=escape, keep_unset=True)
            return name, [(p.key, None if p.value is None else _value(lexer, p.value)) for p in instruction.pairs]
        case ins.Expose():
            return name, sorted(map(_tidy_port, instruction.arguments))
    return name, replace(instruction, line=_NOWHERE, keyword=""), bodies


def _value(lexer: Lexer, text: str) -> str:
    try:
        return lexer.expand(text, {})
    except ParseError:
        return text  # it fails the build, and does so in the same words only if it stays


_NOWHERE = LogicalLine(text="", first=0, last=0, source=SourceFile(filename="", data=b""))
