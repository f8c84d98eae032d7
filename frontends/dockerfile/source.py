"""Where the Dockerfile and the build context come from: a directory of the client, git, http, or another build."""

from __future__ import annotations

from collections.abc import Sequence

from buildengine.archive import is_archive
from buildengine.digest import Digest
from buildengine.errors import BuildError, SolveError, SourceError, UserError
from buildengine.values import dataclass
from frontends.dockerfile import gitref, ignore, lines
from frontends.dockerfile.gitref import GitRef
from frontends.dockerfile.options import Options
from frontends.gateway import FrontendRequest, Gateway, Reference
from llb import giturl, sourcemap
from llb.actions import copy
from llb.sources import git, http, local
from llb.state import State, scratch

CONTEXT = "context"
_DOCKERFILE = "dockerfile"
_DEFAULT = "Dockerfile"
_LANGUAGE = "Dockerfile"
_IGNORE = ".dockerignore"
_DOWNLOADED = "context"  # the name of the file that an http context is downloaded to


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The build context. `tree` None: the directory `context` of the client, of which only what is used is loaded."""

    tree: State | None = None
    dockerfile: State | None = None  # the Dockerfile is in there; None: in a directory of the client
    filename: str = _DEFAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """The Dockerfile as loaded, and the ignore file beside it, if it has one of its own.

    `vertex` is the step that loaded it: what is said of the file is shown there.
    """

    file: lines.SourceFile
    mapped: sourcemap.SourceFile
    own_ignore: bytes | None
    vertex: Digest


async def find_context(gateway: Gateway, request: FrontendRequest, options: Options) -> Context:
    """Raises UserError, SourceError."""
    found = await _remote_context(gateway, request, options)
    if found.tree is None or not options.context_subdir:
        return found
    scoped = scratch().file(copy(found.tree, options.context_subdir, "/", contents=True))
    return Context(tree=scoped, dockerfile=found.dockerfile, filename=found.filename)


async def _remote_context(gateway: Gateway, request: FrontendRequest, options: Options) -> Context:
    address, filename = options.context, options.filename
    repository = gitref.parse(address, short_github=True) if address else None
    if repository is not None:
        name = f"[internal] load git source {giturl.redacted(address)}"
        tree = git_context(repository, name, keep_git_dir=bool(options.keep_git_dir))
        return Context(tree=tree, dockerfile=_unless_local(options, tree), filename=filename)
    if address.startswith(("http://", "https://")):
        return await _download(gateway, address, options)
    if address:
        raise UserError(f"invalid context {address!r}", hint="a context is a directory, a git repository or a URL")
    if _DOCKERFILE in request.inputs and request.inputs[_DOCKERFILE].is_scratch and not options.dockerfile_local:
        hint = "the input 'dockerfile' is empty: give a definition that has a Dockerfile"
        raise UserError("invalid nil input definition to definition op", hint=hint)  # as clients know it
    inputs = {name: State.from_definition(definition) for name, definition in request.inputs.items()}
    dockerfile = None if options.dockerfile_local else inputs.get(_DOCKERFILE)
    return Context(tree=inputs.get(CONTEXT), dockerfile=dockerfile, filename=filename)


def _unless_local(options: Options, tree: State) -> State | None:
    return None if options.dockerfile_local else tree


async def _download(gateway: Gateway, address: str, options: Options) -> Context:
    """An http context is an archive, or else itself the Dockerfile."""
    tree = http(address, filename=_DOWNLOADED, name="[internal] load remote build context")
    reference = await gateway.solve(tree.marshal())
    try:
        archive = is_archive(await reference.read_file(_DOWNLOADED))
    except UserError:  # longer than any Dockerfile
        archive = True
    if archive:
        unpacked = scratch().file(copy(tree, f"/{_DOWNLOADED}", "/", unpack=True))
        return Context(tree=unpacked, dockerfile=_unless_local(options, unpacked), filename=options.filename)
    return Context(tree=tree, dockerfile=_unless_local(options, tree), filename=_DOWNLOADED)


def git_context(repository: GitRef, name: str, *, keep_git_dir: bool = False) -> State:
    return git(
        repository.remote,
        repository.ref,
        subdir=repository.subdir,
        keep_git_dir=keep_git_dir or bool(repository.keep_git_dir),
        checksum=repository.checksum,
        skip_submodules=repository.submodules is False,
        name=name,
    )


# --- the Dockerfile -------------------------------------------------------------------------------------------


async def load_definition(gateway: Gateway, context: Context, options: Options) -> Definition:
    """Raises SourceError when there is no Dockerfile."""
    filename = context.filename
    directory, slash, base = filename.rpartition("/")
    names = [filename, filename + _IGNORE]
    if base == _DEFAULT:
        names.append(f"{directory}{slash}{_DEFAULT.lower()}")  # https://github.com/moby/moby/pull/10858
    tree = context.dockerfile
    if tree is None:
        name = options.dockerfile_local or _DOCKERFILE
        tree = local(
            name,
            follow_paths=names,
            shared_key_hint=name,
            session=options.session_of(name),
            differ="none",
            name=f"[internal] load build definition from {filename}",
        )
    definition = tree.marshal()
    reference = await gateway.solve(definition)
    data = await _read_first(reference, [filename, *names[2:]])
    origin = definition.to_bytes()
    file = lines.SourceFile(filename=filename, data=data, language=_LANGUAGE, definition=origin)
    mapped = sourcemap.SourceFile(filename=filename, data=data, language=_LANGUAGE, definition=origin)
    own_ignore = await _read_if_there(reference, filename + _IGNORE)
    return Definition(file=file, mapped=mapped, own_ignore=own_ignore, vertex=definition.digests()[-2])


async def _read_first(reference: Reference, names: Sequence[str]) -> bytes:
    for name in names:
        found = await _read_if_there(reference, name)
        if found is not None:
            return found
    directory, _, base = names[0].rpartition("/")
    there = await _names(reference, directory or "/")
    others = sorted(name for name in there if "dockerfile" in name.lower())
    hint = f"there is {', '.join(others[:5])}; name it with --file" if others else "name it with --file"
    if base in there:
        hint = "it is a symbolic link, and leads to nothing in there; name the file itself with --file"
    elif there == [_DOWNLOADED]:
        hint = "what was downloaded could not be unpacked: is it a damaged archive?"
    raise SourceError(f"failed to read dockerfile: open {names[0]}: no such file or directory", hint=hint)


async def _names(reference: Reference, directory: str) -> list[str]:
    try:
        return [found.path for found in await reference.read_dir(directory)]
    except SourceError:
        return []


async def _read_if_there(reference: Reference, name: str) -> bytes | None:
    try:
        return await reference.read_file(name)
    except SourceError:
        return None


# --- what is ignored ------------------------------------------------------------------------------------------


async def load_ignored(gateway: Gateway, context: Context, definition: Definition, options: Options) -> tuple[str, ...]:
    """The patterns of `<Dockerfile>.dockerignore`, else of `.dockerignore`; none for a remote context."""
    if context.tree is not None:
        return ()
    if definition.own_ignore is not None:
        name = definition.file.filename + _IGNORE
        return ignore.read(lines.SourceFile(filename=name, data=definition.own_ignore))
    return await read_ignore_file(
        gateway,
        CONTEXT,
        hint=f"{CONTEXT}-{_IGNORE}",
        name=f"[internal] load {_IGNORE}",
        session=options.session_of(CONTEXT),
    )


async def read_ignore_file(gateway: Gateway, directory: str, *, hint: str, name: str, session: str) -> tuple[str, ...]:
    """The patterns of the .dockerignore of a directory of the client."""
    tree = local(directory, follow_paths=[_IGNORE], shared_key_hint=hint, session=session, differ="none", name=name)
    try:
        data = await _read_if_there(await gateway.solve(tree.marshal()), _IGNORE)
    except BuildError as error:
        if not _is_of_the_directory(error):
            raise
        data = None  # a directory that cannot be had: it is said of whoever needs more of it
    return ignore.read(lines.SourceFile(filename=_IGNORE, data=data or b""))


def _is_of_the_directory(error: BuildError) -> bool:
    """And not of the file in it: it has come from a step. An engine elsewhere says only that something failed."""
    first = error.first if isinstance(error, SolveError) else error
    solving = isinstance(error, SolveError) or error.vertex is not None
    return type(first) is BuildError or (solving and isinstance(first, SourceError))
