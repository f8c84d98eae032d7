"""One logical line -> one instruction: the grammar finds the structure, a function for each instruction its meaning.

Pure: knows no variable, no stage and no image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

from buildengine.errors import ParseError
from frontends.dockerfile import instructions as ins
from frontends.dockerfile import mounts, notation, shapes
from frontends.dockerfile.flags import Flags
from frontends.dockerfile.grammar import INSTRUCTIONS, MALFORMED, Parsed, at_least_one, no_destination, parse
from frontends.dockerfile.lines import UNWRITABLE, Dockerfile, Heredoc, LogicalLine, heredoc
from frontends.dockerfile.suggest import also_near, did_you_mean
from frontends.dockerfile.terminals import BLANK, SPACES, exec_form
from frontends.dockerfile.words import quote

if TYPE_CHECKING:
    from lark import Token

T = TypeVar("T")

MOST = 10_000  # parts of a file. A bound of ours, so that a megabyte of anything is answered within 5 s of CPU time
# (20,000 take up to 11 s: WORKDIR of a variable; COPY --from an image 9, with a heredoc 7, ADD 6)

_KEYWORD = re.compile(rf"[{BLANK}]*([^{BLANK}]*)[{BLANK}]*")
_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*\Z")


def instructions(dockerfile: Dockerfile) -> Iterator[ins.Instruction]:
    """The instructions one by one, so that what comes before a mistake can be looked at. Raises ParseError."""
    left = MOST
    for line in dockerfile.lines:
        try:
            found = instruction(line, dockerfile.escape)
        except shapes.ShapeError:
            raise
        except ParseError as error:
            message = f"dockerfile parse error on line {line.first}: {error.message}"
            raise ParseError(message, hint=error.hint, locations=error.locations) from None
        left -= parts(found)
        if left < 0:
            raise ParseError(
                f"the Dockerfile has more than {MOST} instructions, sources, mounts and values",
                hint="write what is generated to a file, and COPY and RUN that",
                locations=(line.location,),
            )
        yield found


def parts(instruction: ins.Instruction) -> int:
    """How much work it is, in steps, sources, mounts and values: each may become an operation."""
    match instruction:
        case ins.PairInstruction():
            return len(instruction.pairs)
        case ins.Transfer():
            return len(instruction.sources) + len(instruction.inline)
        case ins.Run():
            return 1 + len(instruction.mounts)
        case ins.Expose() | ins.Volume():
            return len(instruction.arguments)
    return 1


def instruction(line: LogicalLine, escape: str = "\\") -> ins.Instruction:
    """Raises ParseError with a location, that of the word in question where one is."""
    match = _KEYWORD.match(line.text)
    keyword, start = (match[1], match.end()) if match else ("", 0)
    name = keyword.upper()
    make = _MAKERS.get(name) if keyword.isascii() else None
    if make is None:
        raise _unknown(keyword, line)
    try:
        return make(parse(line, keyword, start, escape))
    except ParseError as error:
        raise error.located(line.location) from None


def _unknown(keyword: str, line: LogicalLine) -> ParseError:
    suggestion = did_you_mean(keyword, INSTRUCTIONS, case_sensitive=False)
    near = also_near(keyword, INSTRUCTIONS)
    hint = f"{near}instructions are {', '.join(sorted(INSTRUCTIONS))}"
    if not keyword.isascii():
        odd = next(c for c in keyword if not c.isascii())
        hint = f"it holds the character U+{ord(odd):04X}: is that meant?"
    elif line.first > 1 and not (suggestion or near):
        hint = "if it belongs to the instruction above, that line must end with a backslash"
    at = line.text.find(keyword)
    return ParseError(
        f"unknown instruction: {keyword}{suggestion}", hint=hint, locations=(line.locate(at, at + len(keyword)),)
    )


# --- one function for each instruction ------------------------------------------------------------------------


def _from(p: Parsed) -> ins.From:
    image, *alias = p.words
    if alias and not _STAGE_NAME.match(alias[1].lower()):
        raise p.error(
            f"invalid name for build stage: {quote(alias[1])}, name can't start with a number or contain symbols",
            "a stage name begins with a letter; then come letters, digits, - _ and .",
            p.tokens[2],
        )
    return ins.From(
        line=p.line,
        keyword=p.keyword,
        image=image,
        stage_name=alias[1] if alias else "",
        as_keyword=alias[0] if alias else "",
        platform=p.flags().value("platform"),
    )


def _arg(p: Parsed) -> ins.Arg:
    pairs = []
    for word, token in zip(shapes.quoted_words(p), p.tokens, strict=False):
        name, equals, value = word.partition("=")
        if not name:
            raise p.error("ARG names can not be blank", "write ARG name=default", token)
        pairs.append(ins.KeyValue(key=name, value=value if equals else None))
    return ins.Arg(line=p.line, keyword=p.keyword, pairs=tuple(pairs))


def _pairs(make: Callable[..., ins.PairInstruction]) -> Callable[[Parsed], ins.Instruction]:
    def build(p: Parsed) -> ins.Instruction:
        p.flags()
        return make(line=p.line, keyword=p.keyword, pairs=shapes.key_values(p))

    return build


def _run(p: Parsed) -> ins.Run:
    given = p.flags()
    argv, shell = shapes.command(p)
    if not argv and not shell:
        raise p.error("RUN requires at least one argument", 'write RUN ["program", "argument"]')
    _check_text(p)
    return ins.Run(
        line=p.line,
        keyword=p.keyword,
        argv=argv,
        shell=shell,
        mounts=_each(p, given, "mount", _mount),
        network=_one_of(p, "network", given.value("network", "default"), ("default", "none", "host")),
        security=_one_of(p, "security", given.value("security", "sandbox"), ("sandbox", "insecure")),
        devices=_each(p, given, "device", _device),
    )


def _each(p: Parsed, given: Flags, flag: str, read: Callable[[Parsed, str, Token], T]) -> tuple[T, ...]:
    """What each use of the flag says."""
    return tuple([read(p, text, token) for text, token in zip(given.values(flag), p.flags_named(flag), strict=True)])


def _check_text(p: Parsed) -> None:
    """Only COPY and ADD make files of their heredocs; everywhere else a body has to be text."""
    binary = next((h.name for h in p.line.heredocs if UNWRITABLE.search(h.body)), None)
    if binary is not None:
        raise p.error(f"heredoc {binary} is not UTF-8 text", "save the Dockerfile as UTF-8")


def _mount(p: Parsed, text: str, token: Token) -> ins.RawMount:
    try:
        return mounts.raw(text, p.span(token))
    except ParseError as error:
        raise error.located(p.at(token)) from None


def _one_of(p: Parsed, flag: str, value: str, options: tuple[str, ...]) -> str:
    if value not in options:
        problem = {
            "network": f"invalid network mode {quote(value)}",
            "security": f"security {quote(value)} is not valid",
        }[flag]
        raise p.error(problem + did_you_mean(value, options), f"--{flag} is one of {', '.join(options)}", p.flag(flag))
    return value


def _device(p: Parsed, text: str, token: Token) -> ins.Device:
    name, required = "", False
    try:
        for field in notation.csv_fields(text):
            key, equals, value = field.partition("=")
            if key.lower() == "required":
                required = _required(value) if equals else True
            elif name:
                raise ValueError(_second_name(name, field))
            else:
                name = value if key.lower() == "name" and equals else field
    except ValueError as error:
        raise p.error(str(error), "write --device=vendor.com/class=name,required", token) from None
    return ins.Device(name=name, required=required)


def _required(value: str) -> bool:
    try:
        return notation.boolean(value)
    except ValueError:
        raise ValueError(f"invalid value for required: {value}") from None


def _second_name(name: str, field: str) -> str:
    key, equals, _ = field.partition("=")
    if not equals:
        return f"invalid field '{field}' must be a key=value pair"
    known = key.lower()
    return f"device name already set to {name}" if known == "name" else f"unexpected key '{known}' in '{field}'"


def _transfer(p: Parsed) -> tuple[tuple[str, ...], tuple[Heredoc, ...], str]:
    """Sources, inline files and destination of COPY and ADD."""
    paths = shapes.paths(p)
    if len(paths) < 2:
        raise p.error(*no_destination(p.name))
    if p.tokens[0].type == "EXEC":
        return paths[:-1], (), paths[-1]
    if heredoc(paths[-1]) is not None:
        raise p.error(f"{p.name} cannot accept a heredoc as a destination", f"write {p.name} <<EOF /path", p.tokens[-1])
    bodies = {h.name: h for h in p.line.heredocs}
    announced = [(path, heredoc(path) if "<<" in path else None) for path in paths[:-1]]
    inline = tuple(bodies.get(found.name, found) for _, found in announced if found is not None)
    return tuple(path for path, found in announced if found is None), inline, paths[-1]


def _copy(p: Parsed) -> ins.Copy:
    sources, inline, destination = _transfer(p)
    given = p.flags()
    return ins.Copy(
        line=p.line,
        keyword=p.keyword,
        sources=sources,
        inline=inline,
        destination=destination,
        source_stage=given.value("from"),
        chown=given.value("chown"),
        chmod=given.value("chmod"),
        link=bool(given.switch("link")),
        parents=bool(given.switch("parents")),
        exclude=given.values("exclude"),
    )


def _add(p: Parsed) -> ins.Add:
    sources, inline, destination = _transfer(p)
    given = p.flags()
    return ins.Add(
        line=p.line,
        keyword=p.keyword,
        sources=sources,
        inline=inline,
        destination=destination,
        chown=given.value("chown"),
        chmod=given.value("chmod"),
        link=bool(given.switch("link")),
        exclude=given.values("exclude"),
        checksum=given.value("checksum"),
        keep_git_dir=given.switch("keep-git-dir"),
        unpack=given.switch("unpack"),
    )


def _shell_or_exec(make: Callable[..., ins.CommandInstruction]) -> Callable[[Parsed], ins.Instruction]:
    def build(p: Parsed) -> ins.Instruction:
        p.flags()
        argv, shell = shapes.command(p)
        return make(line=p.line, keyword=p.keyword, argv=argv, shell=shell)

    return build


def _shell(p: Parsed) -> ins.Shell:
    p.flags()
    argv, shell = shapes.command(p)
    if not argv:
        raise p.error(*at_least_one("SHELL", 'SHELL ["/bin/bash", "-c"]'))
    if shell:
        raise p.error("SHELL requires the arguments to be in JSON form", 'write SHELL ["/bin/bash", "-c"]', p.tokens[0])
    return ins.Shell(line=p.line, keyword=p.keyword, arguments=argv)


def _healthcheck(p: Parsed) -> ins.Healthcheck:
    kind, *rest = p.tokens
    if kind.upper() == "NONE":
        if rest:
            raise p.error("HEALTHCHECK NONE takes no arguments", "write HEALTHCHECK NONE", rest[0])
        return ins.Healthcheck(line=p.line, keyword=p.keyword, argv=(), shell=False, disabled=True)
    given = p.flags()
    if kind.upper() != "CMD":
        raise p.error(
            f"Unknown type {quote(kind.upper())} in HEALTHCHECK (try CMD)",
            "write HEALTHCHECK CMD command, or HEALTHCHECK NONE",
            kind,
        )
    argv = exec_form(rest[0]) if rest and rest[0].type == "EXEC" else tuple(map(str, rest))
    if not argv:
        raise p.error("Missing command after HEALTHCHECK CMD", "write HEALTHCHECK CMD command", kind)
    return ins.Healthcheck(
        line=p.line,
        keyword=p.keyword,
        argv=argv,
        shell=rest[0].type != "EXEC",
        interval=_interval(p, "interval", given),
        timeout=_interval(p, "timeout", given),
        start_period=_interval(p, "start-period", given),
        start_interval=_interval(p, "start-interval", given),
        retries=_retries(p, given.value("retries")),
    )


def _interval(p: Parsed, flag: str, given: Flags) -> int:
    text = given.value(flag)
    if not text:
        return 0
    try:
        nanoseconds = notation.duration(text)
    except ValueError as error:
        raise p.error(str(error), f"--{flag} looks like 30s or 1m30s", p.flag(flag)) from None
    if nanoseconds != 0 and nanoseconds < 1_000_000:
        raise p.error(
            f"Interval {quote(flag)} cannot be less than 1ms", f"--{flag} looks like 30s or 1m30s", p.flag(flag)
        )
    return nanoseconds


def _retries(p: Parsed, text: str) -> int:
    if not text:
        return 0
    if not re.fullmatch("[+-]?[0-9]{1,9}", text):
        raise p.error(f"invalid number of retries: {quote(text)}", "--retries is a number, like 3", p.flag("retries"))
    if int(text) < 0:
        raise p.error(f"--retries cannot be negative ({text})", "--retries is a number, like 3", p.flag("retries"))
    return int(text)


def _expose(p: Parsed) -> ins.Expose:
    p.flags()
    return ins.Expose(line=p.line, keyword=p.keyword, arguments=tuple(sorted(p.words)))


def _volume(p: Parsed) -> ins.Volume:
    p.flags()
    paths = tuple(path.strip(SPACES) for path in shapes.paths(p))
    if not paths:
        raise p.error(*MALFORMED["VOLUME"])
    if "" in paths:
        raise p.error("VOLUME specified can not be an empty string", "write VOLUME /path")
    return ins.Volume(line=p.line, keyword=p.keyword, arguments=paths)


def _onbuild(p: Parsed) -> ins.OnBuild:
    p.flags()
    trigger = p.words[0]
    name = re.split(f"[{BLANK}]", trigger, maxsplit=1)[0].upper()
    if name == "ONBUILD":
        raise p.error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", "write ONBUILD once", p.tokens[0])
    if name in ("MAINTAINER", "FROM"):
        raise p.error(f"{name} isn't allowed as an ONBUILD trigger", "put it in the child's Dockerfile", p.tokens[0])
    _check_text(p)
    bodies = "".join(f"\n{h.body}{h.name}" for h in p.line.heredocs)
    return ins.OnBuild(line=p.line, keyword=p.keyword, argument=trigger + bodies)


def _text(make: Callable[..., ins.TextInstruction]) -> Callable[[Parsed], ins.Instruction]:
    def build(p: Parsed) -> ins.Instruction:
        if p.name != "STOPSIGNAL":
            p.flags()
        return make(line=p.line, keyword=p.keyword, argument=p.words[0])

    return build


_MAKERS: Mapping[str, Callable[[Parsed], ins.Instruction]] = {
    "FROM": _from,
    "ARG": _arg,
    "ENV": _pairs(ins.Env),
    "LABEL": _pairs(ins.Label),
    "RUN": _run,
    "CMD": _shell_or_exec(ins.Cmd),
    "ENTRYPOINT": _shell_or_exec(ins.Entrypoint),
    "SHELL": _shell,
    "HEALTHCHECK": _healthcheck,
    "ADD": _add,
    "COPY": _copy,
    "VOLUME": _volume,
    "EXPOSE": _expose,
    "ONBUILD": _onbuild,
    "MAINTAINER": _text(ins.Maintainer),
    "STOPSIGNAL": _text(ins.StopSignal),
    "USER": _text(ins.User),
    "WORKDIR": _text(ins.Workdir),
}
