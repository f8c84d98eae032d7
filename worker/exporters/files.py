"""The `local` and `tar` exporters: the result's files, into a directory or as one tar stream.

Into a directory they are merged: what is there and not in the result stays, unless `mode=delete`.
Destination paths are resolved inside the destination, so a symlink that waits there leads nowhere else. Files belong
to whoever runs the build, mostly root; so they are made without set-ID bits and capabilities, and device files for
nobody else: what a build makes must not give a user of this host rights. A tar stream has everything, for who wants a
root file system. Several platforms go into a directory each, `linux_amd64`, unless they are merged into one tree
(`platform-split=false`), where no file may come from two of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace

from buildengine.errors import HostError, StoreError, UserError
from buildengine.limits import DISK, offload, still_wanted
from buildengine.wholefile import named_by_user
from llb.ops import CopyAction
from worker.exporters.destination import Copied, make_directory, remove_others, write_file
from worker.exporters.options import ExportOptions
from worker.exporters.result import BuildResult, PlatformImage
from worker.layers import copytree
from worker.layers.failures import explained
from worker.layers.names import Path, shown
from worker.layers.rootpath import open_directory
from worker.layers.tar import END, Kind, TarHeader, encode, padded
from worker.layers.write import PLAIN, Shape, layer_blocks
from worker.trees import Trees


async def write_directory(
    trees: Trees,
    directory: str,
    result: BuildResult,
    options: ExportOptions,
    part: Callable[[str], AbstractContextManager[None]],
) -> None:
    """Copy each image below `directory`, in a directory of its platform when the result is a set.

    Each copy is a `part` with a name, for progress.
    """
    if options.delete and os.path.realpath(directory) == "/":
        raise UserError("mode=delete would delete everything on this host", hint="name another directory than /")
    try:
        target = make_directory(directory)
    except OSError as error:
        raise UserError(f"cannot write to {directory}: {error.strerror}") from error
    try:
        with ExitStack() as opened:
            copied = [await _opened(trees, image, result, options, opened) for image in result.images]
            if len(copied) > 1 and not _is_split(result, options):
                with explained("cannot compare the results of the platforms"):
                    await offload(_check_apart, result.platforms, [tree.root for tree in copied], limiter=DISK)
            owner = (os.geteuid(), os.getegid())
            for image, tree in zip(result.images, copied, strict=True):
                with part(f"copying files {image.id}" if tree.below else "copying files"), _written_to(directory):
                    action = _copy_all(tree, options)
                    await copytree.copy(tree.root, target, action, owner=owner, unprivileged=True)
            kept = []
            for image, tree in zip(result.images, copied, strict=True):
                kept += await _write_attestations(trees, target, image, tree, result, options)
            if options.delete:  # afterwards, so that a copy that fails has deleted nothing
                with explained("cannot delete what is not in the result"):
                    await offload(remove_others, target, copied, kept, limiter=DISK)
    finally:
        os.close(target)


@contextmanager
def _written_to(directory: str) -> Iterator[None]:
    """A disk that is full or read-only is the user's, not the store's."""
    try:
        yield
    except (StoreError, HostError) as error:
        cause = error.__cause__
        if not isinstance(cause, OSError):
            raise
        with named_by_user(f"to {directory}"):
            raise cause from None


async def _opened(
    trees: Trees, image: PlatformImage, result: BuildResult, options: ExportOptions, opened: ExitStack
) -> Copied:
    await trees.ensure(image.stack)
    below = (_platform_directory(image),) if _is_split(result, options) else ()
    return Copied(root=opened.enter_context(trees.open_stack(image.stack)), below=below)


async def _write_attestations(
    trees: Trees, target: int, image: PlatformImage, tree: Copied, result: BuildResult, options: ExportOptions
) -> list[Path]:
    """The statements beside the files of an image; where they stand in the destination."""
    files = await _attestations(trees, image, result, options)
    with explained("cannot write the attestations"):
        for name, data in files.items():
            path = (*tree.below, os.fsencode(name))
            await offload(write_file, target, path, data, _moment(options), limiter=DISK)
    return [(*tree.below, os.fsencode(name)) for name in files]


async def _attestations(
    trees: Trees, image: PlatformImage, result: BuildResult, options: ExportOptions
) -> Mapping[str, bytes]:
    if not image.attestations:
        return {}
    from worker.exporters.attested import attestation_files

    merged = result.multi_platform and not _is_split(result, options)
    return await attestation_files(trees, image, options, platform=image.id if merged else "")


def _moment(options: ExportOptions) -> int:
    """When an attestation is said to have been written, in seconds."""
    return int(time.time()) if options.epoch is None else options.epoch


def _is_split(result: BuildResult, options: ExportOptions) -> bool:
    return result.multi_platform if options.platform_split is None else options.platform_split


def _platform_directory(image: PlatformImage) -> bytes:
    return os.fsencode(image.id.replace("/", "_"))


def _copy_all(tree: Copied, options: ExportOptions) -> CopyAction:
    return CopyAction(
        src="/",
        dest=f"/{os.fsdecode(tree.below[0])}" if tree.below else "/",
        dir_copy_contents=True,
        create_dest_path=True,
        always_replace_existing_dest_paths=True,
        timestamp=options.epoch * 1_000_000_000 if options.epoch is not None else -1,
    )


def _check_apart(platforms: Sequence[str], roots: Sequence[int]) -> None:
    """Of trees that go into one, only directories may be in several. Raises UserError.

    What only one tree has is not looked into.
    """
    waiting: list[tuple[Path, Mapping[str, int]]] = [((), dict(zip(platforms, roots, strict=True)))]
    while waiting:
        path, trees = waiting.pop()
        found: dict[bytes, dict[str, bool]] = {}  # names: which of the platforms have it, and whether as a directory
        for platform, root in trees.items():
            for name, is_directory in _entries(root, path):
                found.setdefault(name, {})[platform] = is_directory
        for name, kinds in found.items():
            if len(kinds) > 1 and all(kinds.values()):
                waiting.append(((*path, name), {platform: trees[platform] for platform in kinds}))
            elif len(kinds) > 1:
                first, *others = kinds
                raise UserError(
                    f"cannot overwrite {shown(b'/'.join((*path, name)))} from {first} with {', '.join(others)}"
                    " when split option is disabled",
                    hint="without platform-split=false each platform gets a directory of its own",
                )


def _entries(root: int, path: Path) -> list[tuple[bytes, bool]]:
    """What is in the directory `path` of a tree, and whether it is a directory."""
    fd = open_directory(root, path)
    try:
        with os.scandir(fd) as scan:
            return [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in scan]
    finally:
        os.close(fd)


async def write_tar(trees: Trees, fd: int, result: BuildResult, options: ExportOptions) -> None:
    """Write the result as one tar stream, a set of images below a directory for each."""
    split = _is_split(result, options)
    for position, image in enumerate(sorted(result.images, key=_platform_directory)):
        await trees.ensure(image.stack)
        prefix = _platform_directory(image) + b"/" if split else b""
        shape = _below(prefix, options.epoch) if split else PLAIN
        ends = position == len(result.images) - 1
        files = await _attestations(trees, image, result, options)
        with trees.open_stack(image.stack) as root:
            await offload(_write, root, fd, options.epoch, replace(shape, ends=ends and not files), limiter=DISK)
        entries = {prefix + os.fsencode(name): data for name, data in files.items()}
        if entries:
            await offload(_write_entries, fd, entries, _moment(options), ends, limiter=DISK)


def _below(prefix: bytes, epoch: int | None) -> Shape:
    """An archive whose entries are all in the directory `prefix`."""

    def moved(header: TarHeader) -> TarHeader:
        linkname = prefix + header.linkname if header.kind is Kind.LINK else header.linkname
        return replace(header, name=prefix + header.name, linkname=linkname)

    top = TarHeader(name=prefix, kind=Kind.DIRECTORY, mode=0o755, mtime=(epoch or 0) * 1_000_000_000)
    return Shape(first=(top,), reshape=moved)


def _write_entries(fd: int, entries: Mapping[bytes, bytes], moment: int, ends: bool) -> None:
    with open(fd, "wb", closefd=False) as file:
        for name, data in entries.items():
            header = TarHeader(name=name, kind=Kind.FILE, mode=0o600, size=len(data), mtime=moment * 1_000_000_000)
            file.write(encode(header) + data.ljust(padded(len(data)), b"\0"))
        file.write(END if ends else b"")


def _write(root: int, fd: int, epoch: int | None, shape: Shape) -> None:
    with layer_blocks(root, None, epoch=epoch, shape=shape) as blocks:
        for block in blocks:
            view = block
            while view:
                still_wanted()
                view = view[os.write(fd, view) :]
            blocks.recycle(block)
