"""The `local` and `tar` exporters: the result's files, into a directory or as one tar stream.

Into a directory they are merged: what is there and not in the result stays, unless `mode=delete`.
Destination paths are resolved inside the destination, so a symlink that waits there leads nowhere else. Files belong
to whoever runs the build, mostly root; so they are made without set-ID bits and capabilities, and device files for
nobody else: what a build makes must not give a user of this host rights. A tar stream has everything, for who wants a
root file system.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack

from buildengine.errors import UserError
from buildengine.limits import DISK, offload
from llb.ops import CopyAction
from worker.exporters.destination import Copied, make_directory, remove_others
from worker.exporters.image import PlatformImage
from worker.exporters.options import ExportOptions
from worker.layers import copytree
from worker.layers.failures import explained
from worker.layers.write import layer_blocks
from worker.trees import Trees


async def write_directory(
    trees: Trees, directory: str, results: Sequence[PlatformImage], options: ExportOptions
) -> None:
    """Copy each result below `directory`, in a directory of its platform when there are several."""
    if options.delete and os.path.realpath(directory) == "/":
        raise UserError("mode=delete would delete everything on this host", hint="name another directory than /")
    try:
        target = make_directory(directory)
    except OSError as error:
        raise UserError(f"cannot write to {directory}: {error.strerror}") from error
    try:
        for result in results:
            await trees.ensure(result.stack)
            with trees.open_stack(result.stack) as root:
                action = _copy_all(result, results, options)
                await copytree.copy(root, target, action, owner=(os.geteuid(), os.getegid()), unprivileged=True)
        if options.delete:
            await _delete_others(trees, target, results, options)
    finally:
        os.close(target)


async def _delete_others(trees: Trees, target: int, results: Sequence[PlatformImage], options: ExportOptions) -> None:
    """Afterwards, so that a copy that fails has deleted nothing."""
    with ExitStack() as opened:
        copied = [
            Copied(
                root=opened.enter_context(trees.open_stack(result.stack)),
                below=(os.fsencode(_platform_directory(result)),) if _is_split(results, options) else (),
            )
            for result in results
        ]
        with explained("cannot delete what is not in the result"):
            await offload(remove_others, target, copied, limiter=DISK)


def _is_split(results: Sequence[PlatformImage], options: ExportOptions) -> bool:
    return len(results) > 1 if options.platform_split is None else options.platform_split


def _platform_directory(result: PlatformImage) -> str:
    return str(result.platform).replace("/", "_")


def _copy_all(result: PlatformImage, results: Sequence[PlatformImage], options: ExportOptions) -> CopyAction:
    return CopyAction(
        src="/",
        dest=f"/{_platform_directory(result)}" if _is_split(results, options) else "/",
        dir_copy_contents=True,
        create_dest_path=True,
        always_replace_existing_dest_paths=True,
        timestamp=options.epoch * 1_000_000_000 if options.epoch is not None else -1,
    )


async def write_tar(trees: Trees, fd: int, results: Sequence[PlatformImage], options: ExportOptions) -> None:
    """Write the one result as a tar stream."""
    stack = results[0].stack
    await trees.ensure(stack)
    with trees.open_stack(stack) as root:
        await offload(_write, root, fd, options.epoch, limiter=DISK)


def _write(root: int, fd: int, epoch: int | None) -> None:
    with layer_blocks(root, None, epoch=epoch) as blocks:
        for block in blocks:
            view = block
            while view:
                view = view[os.write(fd, view) :]
            blocks.recycle(block)
