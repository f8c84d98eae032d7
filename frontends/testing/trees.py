"""What is in the tree of a definition, worked out in memory: sources are given, file actions are done, commands leave
what somebody has said that they leave.

Owners, times and extended attributes are not known here; a symbolic link is followed only where it is a path's end.
"""

from __future__ import annotations

import io
import stat
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from buildengine.errors import SourceError
from llb import ops
from llb.definition import Definition
from llb.globs import has_wildcard, name_pattern
from llb.graph import Node, load
from llb.patterns import PatternMatcher

Given = Mapping[str, bytes | str]
"""Files as tests write them: contents by path."""
_DIRECTORY = stat.S_IFDIR | 0o755


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file, directory or symbolic link; `mode` is st_mode."""

    mode: int
    data: bytes = b""
    link: str = ""


Tree = Mapping[str, Entry]
"""Entries by path without a slash in front: `etc/passwd`."""
_SCRATCH: Tree = {}
_NO_ARCHIVE = (tarfile.ReadError, EOFError, zlib.error)


def tree(given: Given) -> Tree:
    """These files with the directories that they are in."""
    made: dict[str, Entry] = {}
    for path, content in given.items():
        data = content.encode() if isinstance(content, str) else content
        _put(made, clean(path), Entry(mode=stat.S_IFREG | 0o644, data=data))
    return made


def clean(path: str) -> str:
    """`a/b` of `/a/./b/`."""
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def matching(found: Tree, include: Sequence[str], exclude: Sequence[str]) -> Tree:
    """What patterns as in .dockerignore leave of a tree; none includes everything."""
    wanted, unwanted = PatternMatcher(include), PatternMatcher(exclude)
    kept: dict[str, Entry] = {}
    for path, entry in found.items():
        if (not wanted or wanted.matches(path)) and not unwanted.matches(path):
            _put(kept, path, entry)
    return kept


def evaluate(
    definition: Definition, source: Callable[[ops.SourceOp], Tree], left: Callable[[Node], Mapping[str, bytes]]
) -> Tree:
    """The result's tree. `source` gives that of a source, `left` the files that a command leaves, by absolute path."""
    if definition.is_scratch:
        return _SCRATCH
    graph = load(definition)
    results: dict[ops.Input, Tree] = {}
    for digest, node in graph.nodes.items():
        inputs = [results[each] for each in node.op.inputs]
        match node.op.payload:
            case ops.SourceOp() as payload:
                made: Sequence[Tree] = [source(payload)]
            case ops.FileOp() as payload:
                made = _files(payload, inputs)
            case ops.ExecOp() as payload:
                made = _ran(payload, inputs, left(node))
            case ops.MergeOp() as payload:
                made = [{path: entry for index in payload.inputs for path, entry in inputs[index].items()}]
            case ops.DiffOp() as payload:
                lower, upper = (_at(inputs, index) for index in (payload.lower, payload.upper))
                made = [{path: entry for path, entry in upper.items() if lower.get(path) != entry}]
            case _:
                raise SourceError(f"{node.name}: no fake knows what comes of it")
        results.update({ops.Input(digest=digest, index=index): result for index, result in enumerate(made)})
    return results[graph.root]


def _at(trees: Sequence[Tree], index: int) -> Tree:
    return _SCRATCH if index == ops.NO_INPUT else trees[index]


def _put(made: dict[str, Entry], path: str, entry: Entry, mode: int = -1) -> None:
    """With the directories above it. `mode` is the permissions of all that is made here, -1: as they are."""
    parts = path.split("/")
    for end in range(1, len(parts)):
        made.setdefault("/".join(parts[:end]), _with_mode(Entry(mode=_DIRECTORY), mode))
    if path:
        made[path] = _with_mode(entry, mode)


def _with_mode(entry: Entry, mode: int) -> Entry:
    return entry if mode < 0 or entry.link else replace(entry, mode=stat.S_IFMT(entry.mode) | mode)


# --- commands -------------------------------------------------------------------------------------------------


def _ran(payload: ops.ExecOp, inputs: Sequence[Tree], left: Mapping[str, bytes]) -> Sequence[Tree]:
    """What the mounts with an output became: each file goes into the mount that its path is below."""
    mounts = sorted(payload.mounts, key=lambda mount: -len(clean(mount.dest)))
    changed = {mount.dest: dict(_at(inputs, mount.input)) for mount in mounts}
    for path, data in left.items():
        name = clean(path)
        mount = next(m for m in mounts if _below(name, clean(m.dest)))
        relative = name[len(clean(mount.dest)) :].lstrip("/")
        _put(changed[mount.dest], relative, Entry(mode=stat.S_IFREG | 0o644, data=data))
    results = {mount.output: changed[mount.dest] for mount in mounts if mount.output != ops.NO_OUTPUT}
    return [results[index] for index in sorted(results)]


def _below(path: str, directory: str) -> bool:
    return not directory or path == directory or path.startswith(f"{directory}/")


# --- file actions ---------------------------------------------------------------------------------------------


def _files(payload: ops.FileOp, inputs: Sequence[Tree]) -> Sequence[Tree]:
    known: list[Tree] = list(inputs)
    outputs: dict[int, Tree] = {}
    for step in payload.actions:
        made = dict(_at(known, step.input))
        _act(made, step.action, _at(known, step.secondary_input))
        known.append(made)
        if step.output != ops.NO_OUTPUT:
            outputs[step.output] = made
    return [outputs[index] for index in sorted(outputs)]


def _act(made: dict[str, Entry], action: ops.Action, source: Tree) -> None:
    match action:
        case ops.MkFile():
            _put(made, clean(action.path), Entry(mode=stat.S_IFREG | action.mode, data=action.data))
        case ops.MkDir():
            _put(made, clean(action.path), Entry(mode=stat.S_IFDIR | action.mode))
        case ops.Symlink():
            _put(made, clean(action.newpath), Entry(mode=stat.S_IFLNK | 0o777, link=action.oldpath))
        case ops.Remove():
            for path in _found(made, action.path, wildcard=action.allow_wildcard, missing_ok=action.allow_not_found):
                for name in [name for name in made if _below(name, path)]:
                    del made[name]
        case ops.CopyAction():
            _copy(made, action, source)


def _copy(made: dict[str, Entry], action: ops.CopyAction, source: Tree) -> None:
    chosen = matching(source, action.include_patterns, action.exclude_patterns)
    missing_ok = action.allow_empty_wildcard
    for path in _found(chosen, action.src, wildcard=action.allow_wildcard, missing_ok=missing_ok):
        entry = chosen.get(path, Entry(mode=_DIRECTORY))
        directory, destination = stat.S_ISDIR(entry.mode), clean(action.dest)
        archive = _archive(entry) if action.attempt_unpack else None
        if archive is not None:
            copied = archive
        elif directory:
            copied = {name[len(path) :].lstrip("/"): each for name, each in chosen.items() if _below(name, path)}
            into = path and not action.dir_copy_contents and (action.dest.endswith("/") or destination in made)
            destination = clean(f"{destination}/{path.rpartition('/')[2]}") if into else destination
            _put(made, destination, entry, action.mode)
        else:
            is_directory = action.dest.endswith("/") or not destination or _is_directory(made, destination)
            copied = {path.rpartition("/")[2] if is_directory else "": entry}
        for name, each in copied.items():
            _put(made, clean(f"{destination}/{name}"), each, action.mode)


def _is_directory(made: Tree, path: str) -> bool:
    return path in made and stat.S_ISDIR(made[path].mode)


def _found(among: Tree, pattern: str, *, wildcard: bool, missing_ok: bool) -> list[str]:
    """The paths that are meant; "" is the root."""
    path = clean(pattern)
    if wildcard and has_wildcard(path):
        names = [name_pattern(part) for part in path.split("/")]
        found = [
            name
            for name in among
            if name.count("/") == len(names) - 1
            and all(one.fullmatch(part) for one, part in zip(names, name.split("/"), strict=True))
        ]
    else:
        found = [path] if not path or path in among else []
    if not found and not missing_ok:
        raise SourceError(f"{pattern}: no such file or directory")
    return found


def _archive(entry: Entry) -> dict[str, Entry] | None:
    """What is in a tar archive; None for what does not begin as one. Raises SourceError for one that is damaged."""
    if not stat.S_ISREG(entry.mode):
        return None
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(tarfile.open(fileobj=io.BytesIO(entry.data)))
        except _NO_ARCHIVE:
            return None
        try:
            return _unpacked(archive)
        except _NO_ARCHIVE as error:
            raise SourceError(f"the archive is damaged: {error}") from error


def _unpacked(archive: tarfile.TarFile) -> dict[str, Entry]:
    unpacked: dict[str, Entry] = {}
    for member in archive:
        kind = stat.S_IFDIR if member.isdir() else stat.S_IFLNK if member.issym() else stat.S_IFREG
        file = archive.extractfile(member) if member.isfile() else None
        data = file.read() if file else b""
        link = member.linkname if member.issym() else ""
        _put(unpacked, clean(member.name), Entry(mode=kind | member.mode, data=data, link=link))
    return unpacked
