"""The `local` and `tar` exporters: the result's files, into a directory or as one tar stream.

Into a directory they are merged: what is there and not in the result stays. Destination paths are resolved inside
the destination, so a symlink that waits there leads nowhere else. Files belong to whoever runs the build, mostly root;
so they are made without set-ID bits and capabilities, and device files for nobody else: what a build makes must not
give a user of this host rights. A tar stream has everything, for who wants a root file system.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from buildengine.errors import UserError
from buildengine.limits import DISK, offload
from llb.ops import CopyAction
from worker.exporters.image import PlatformImage
from worker.exporters.options import ExportOptions
from worker.layers import copytree
from worker.layers.write import layer_blocks
from worker.trees import Trees


async def write_directory(
    trees: Trees, directory: str, results: Sequence[PlatformImage], options: ExportOptions
) -> None:
    """Copy each result below `directory`, in a directory of its platform when there are several."""
    try:
        os.makedirs(directory, exist_ok=True)
        target = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(f"cannot write to {directory}: {error.strerror}") from error
    try:
        for result in results:
            await trees.ensure(result.stack)
            with trees.open_stack(result.stack) as root:
                action = _copy_all(result, results, options)
                await copytree.copy(root, target, action, owner=(os.geteuid(), os.getegid()), unprivileged=True)
    finally:
        os.close(target)


def _copy_all(result: PlatformImage, results: Sequence[PlatformImage], options: ExportOptions) -> CopyAction:
    split = len(results) > 1 if options.platform_split is None else options.platform_split
    return CopyAction(
        src="/",
        dest=f"/{str(result.platform).replace('/', '_')}" if split else "/",
        dir_copy_contents=True,
        create_dest_path=True,
        always_replace_existing_dest_paths=True,
        timestamp=options.epoch * 1_000_000_000 if options.epoch is not None else -1,
    )


async def write_tar(trees: Trees, fd: int, results: Sequence[PlatformImage], options: ExportOptions) -> None:
    """Write the one result as a tar stream. Raises UserError for several."""
    if len(results) != 1:
        raise UserError("type=tar exports one platform", hint="use type=local for several")
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
