"""COPY and ADD: every source becomes one copy action, all of them together one operation. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TypedDict
from urllib.parse import unquote, urlsplit

from buildengine.digest import Digest
from buildengine.errors import ParseError, UserError
from buildengine.events import ProgressGroup
from buildengine.ids import LARGEST_ID
from buildengine.values import dataclass
from frontends.dockerfile import gitref, imagepaths
from frontends.dockerfile import instructions as ins
from frontends.dockerfile.convert.draft import COMMAND, Draft
from frontends.dockerfile.convert.pending import rooted
from frontends.dockerfile.gitref import GitRef
from frontends.dockerfile.lines import Heredoc
from frontends.dockerfile.words import Lexer, quote
from llb import paths
from llb.actions import Actions, mkfile
from llb.sources import git, http
from llb.state import State, merge, scratch

_SYMBOLIC = re.compile(r"[ugoa]*(?:[-+=](?:[rwxXst]*|[ugo]))+(?:,[ugoa]*(?:[-+=](?:[rwxXst]*|[ugo]))+)*\Z")
_BODY = Lexer(plain_quotes=True)  # variables in a heredoc; its escape character is always the backslash


class _Common(TypedDict):
    """What all copies of one instruction share."""

    owner: str | None
    mode: int | str | None
    exclude: tuple[str, ...]
    parents: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """One source as written, its variables expanded: a `repository`, a download, or files."""

    text: str
    repository: GitRef | None

    @property
    def is_remote(self) -> bool:
        return self.repository is not None or self.is_download

    @property
    def is_download(self) -> bool:
        """By its scheme, as BuildKit has it: `git@host:path` is also looked for in the context, in vain."""
        return self.text.startswith(("http://", "https://"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One COPY or ADD, its variables expanded. `files` is where its plain sources are."""

    draft: Draft
    instruction: ins.Copy | ins.Add
    sources: tuple[_Source, ...]
    dest: str
    destination: str
    chown: str
    chmod: str
    checksum: str
    files: State
    name: str

    @property
    def common(self) -> _Common:
        return {
            "owner": self.draft.owner(self.chown),
            "mode": _mode(self.chmod) if self.chmod else None,
            "exclude": self.instruction.exclude,
            "parents": True,
        }


def transfer(draft: Draft, instruction: ins.Copy | ins.Add, source: Draft | None) -> None:
    """`source` is the stage of --from; without it, files come from the build context."""
    job = _job(draft, instruction, source)
    actions = Actions()
    for wanted in job.sources:
        actions = _copy_source(job, actions, wanted)
    for document in instruction.inline:
        actions = _copy_inline(job, actions, document)
    if instruction.link and not job.chmod:
        draft.state = _linked(job, actions)
    else:
        draft.state = draft.state.file(
            actions,
            name=job.name,
            place=draft.place(instruction),
            ignore_cache=draft.stage.ignore_cache,
        )
    used = source.stage.used if source else draft.shared.context_used
    os = draft.platform.os
    used.update(rooted(imagepaths.slashed(wanted.text, os)) for wanted in job.sources if not wanted.is_download)
    draft.commit(_history_text(job), layer=True, suffix=" # buildkit")


def _job(draft: Draft, instruction: ins.Copy | ins.Add, source: Draft | None) -> _Job:
    def expand(text: str) -> str:
        return draft.expand(text, instruction) if text else ""

    shown = draft.shown_command(instruction.text, draft.shared.lexer, draft.env)
    chown, chmod = expand(instruction.chown), expand(instruction.chmod)  # in this order: the first mistake is told
    sources = tuple([expand(text) for text in instruction.sources])
    destination = expand(instruction.destination)
    job = _Job(
        draft=draft,
        instruction=instruction,
        sources=tuple(map(_source, sources)),
        destination=destination,
        dest=imagepaths.destination(draft.state.cwd, destination, draft.platform.os),
        chown=_owner(chown),
        chmod=chmod,
        checksum=expand(instruction.checksum) if isinstance(instruction, ins.Add) else "",
        files=source.state if source else draft.shared.context,
        name=draft.step_name(shown),
    )
    _check_checksum(job)
    if source is None:
        _check_ignored(job)
    return job


def _source(text: str) -> _Source:
    try:
        return _Source(text=text, repository=gitref.parse(text))
    except UserError as error:
        raise ParseError(error.message, hint=error.hint) from None


def _owner(text: str) -> str:
    """`user[:group]`, whose numbers are ids. Raises ParseError."""
    for part in text.split(":"):
        if part.isascii() and part.isdigit() and int(part[:20]) > LARGEST_ID:
            raise ParseError(f"invalid chown parameter: {part} is no id", hint=f"ids go from 0 to {LARGEST_ID}")
    return text


def _check_checksum(job: _Job) -> None:
    if not job.checksum:
        return
    if len(job.sources) != 1:
        raise ParseError("checksum can't be specified for multiple sources", hint="write one ADD for each source")
    if not job.sources[0].is_remote:
        raise ParseError("checksum requires HTTP(S) or Git sources", hint="remove --checksum, or add a URL")


def _check_ignored(job: _Job) -> None:
    shared = job.draft.shared
    for wanted in job.sources:
        if shared.ignored and not wanted.is_remote and shared.ignored.matches(wanted.text):
            command = job.instruction.name.capitalize()
            message = f"Attempting to {command} file {quote(wanted.text)} that is excluded by .dockerignore"
            shared.linter.found("CopyIgnoredFile", message, job.instruction.location)


def _mode(text: str) -> int | str:
    """Octal, or symbolic as chmod(1) takes it. Raises ParseError."""
    if re.fullmatch("[0-7]{1,20}", text) and int(text, 8) <= 0o7777:
        return int(text, 8)
    if text[0].isdigit():
        raise ParseError(
            f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777",
            hint="write --chmod=755, or symbolic: --chmod=u+rwX,go-w",
        )
    if not _SYMBOLIC.match(text):
        raise ParseError(
            f"invalid chmod parameter: '{text}'", hint="write --chmod=755, or symbolic: --chmod=u+rwX,go-w"
        )
    return text


# --- one source -----------------------------------------------------------------------------------------------


def _copy_source(job: _Job, actions: Actions, source: _Source) -> Actions:
    if not source.is_remote:
        return _copy_files(job, actions, source.text)
    if not isinstance(job.instruction, ins.Add):
        what = "a git ref" if source.repository else "a URL"
        raise ParseError(f"source can't be {what} for COPY", hint="write ADD instead of COPY")
    if source.repository is not None:
        return _copy_repository(job, job.instruction, actions, source.repository)
    return _copy_download(job, job.instruction, actions, source.text)


def _copy_files(job: _Job, actions: Actions, path: str) -> Actions:
    instruction = job.instruction
    include: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    if isinstance(instruction, ins.Copy) and instruction.parents:
        path, include, required = _with_parents(imagepaths.slashed(path, job.draft.platform.os))
    unpack = isinstance(instruction, ins.Add) and instruction.unpack is not False
    return actions.copy(
        job.files,
        imagepaths.source(path, job.draft.platform.os),
        job.dest,
        follow_symlink=True,
        contents=True,
        unpack=unpack,
        wildcard=True,
        allow_empty_wildcard=True,
        include=include,
        required=required,
        **job.common,
    )


def _with_parents(path: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """What --parents copies: the part behind `/./` keeps its directories. A path without wildcards must exist."""
    base, pivot, pattern = path.partition("/./")
    if not pivot:
        base, pattern = "/", path
    pattern = pattern if pattern.startswith("/") else paths.resolve("/", pattern)
    exact = not _has_wildcard(base) and not _has_wildcard(pattern)
    return base, (pattern.removeprefix("/"),), (paths.resolve("/", base + "/" + pattern),) if exact else ()


def _has_wildcard(path: str) -> bool:
    return re.search(r"(?:\A|[^\\])(?:\\\\)*[*?\[]", path) is not None


def _copy_repository(job: _Job, instruction: ins.Add, actions: Actions, repository: GitRef) -> Actions:
    keep, asked = instruction.keep_git_dir, repository.keep_git_dir
    if keep is not None and asked is not None and keep != asked:
        raise ParseError("inconsistent keep-git-dir configuration", hint="say it in the flag or in the URL")
    if job.checksum and repository.checksum and job.checksum != repository.checksum:
        raise ParseError(
            f"checksum mismatch {quote(job.checksum)} != {quote(repository.checksum)}",
            hint="say it in the flag or in the URL",
        )
    tree = git(
        repository.remote,
        repository.ref,
        subdir=repository.subdir,
        keep_git_dir=bool(keep or asked),
        checksum=job.checksum or repository.checksum,
        skip_submodules=repository.submodules is False,
        name=job.name,
        place=job.draft.place(instruction),
    )
    return actions.copy(tree, "/", job.dest, **job.common)


def _copy_download(job: _Job, instruction: ins.Add, actions: Actions, url: str) -> Actions:
    try:
        base = posixpath.basename(unquote(urlsplit(url).path).rstrip("/"))
        checksum = Digest.parse(job.checksum) if job.checksum else None
    except (ValueError, UserError) as error:
        raise ParseError(str(error), hint=getattr(error, "hint", None)) from None
    filename = base or "__unnamed__"
    tree = http(
        url,
        filename=filename,
        checksum=checksum,
        name=job.name,
        description={COMMAND: ""},
        place=job.draft.place(instruction),
    )
    return actions.copy(tree, filename, job.dest, unpack=instruction.unpack is True, **job.common)


def _copy_inline(job: _Job, actions: Actions, document: Heredoc) -> Actions:
    text = document.content
    if document.expand:
        lexer = replace(_BODY, budget=job.draft.shared.lexer.budget)
        text = job.draft.checked(lexer.process(text, job.draft.env), job.instruction).text
    tree = scratch().file(
        mkfile(document.name, text.encode("utf-8", "surrogateescape"), mode=0o644),
        name="[internal] preparing inline document",
        place=job.draft.place(job.instruction),
    )
    return actions.copy(tree, document.name, job.dest, **job.common)


# --- the whole ------------------------------------------------------------------------------------------------


def _linked(job: _Job, actions: Actions) -> State:
    """--link: copied to an empty tree, which is then laid on top; the base can change without copying again."""
    draft = job.draft
    id = Digest.sha256(f"{draft.stage.label}/{draft.number}/{job.name}".encode())
    copied = (
        scratch()
        .with_surroundings_of(draft.state)
        .file(
            actions,
            name=job.name,
            place=draft.place(job.instruction),
            ignore_cache=draft.stage.ignore_cache,
            progress_group=ProgressGroup(id=id, name=job.name, weak=True),
        )
    )
    shown = draft.shown_command(job.instruction.text, draft.shared.lexer, draft.env)
    merged = merge(
        [draft.state, copied],
        name=draft.numbered("LINK " + shown),
        place=draft.place(job.instruction),
        ignore_cache=draft.stage.ignore_cache,
        progress_group=ProgressGroup(id=id, name=job.name),
    )
    return merged.with_surroundings_of(draft.state)


def _history_text(job: _Job) -> str:
    parts: Sequence[str] = (
        job.instruction.name,
        "--parents" if isinstance(job.instruction, ins.Copy) and job.instruction.parents else "",
        f"--chown={job.chown}" if job.chown else "",
        f"--chmod={job.chmod}" if job.chmod else "",
    )
    inline = [f"<<{document.name}" for document in job.instruction.inline]
    return " ".join([*filter(None, parts), *[s.text for s in job.sources], *inline, job.destination])
