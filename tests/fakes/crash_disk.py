"""A store on a disk image that is copied in the middle of a build, again and again: a power cut at each of them.

    unshare --mount --propagation slave python -m tests.fakes.crash_disk TEMPLATE HOME DIRECTORY CUTS

The build is stopped while the image is copied, and the copy counts only if the kernel has written nothing to the
disk meanwhile: then it is what a power cut would have left. Some copies are made just after the kernel has
written out everything. Each copy is mounted (ext4 replays its journal), opened, verified and built on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.builds import Built, Command, Store
from tests.fakes import leftovers
from tests.fakes.crash_builds import Site, send

_SIZE = 192 << 20


class Disk:
    """An ext4 file system in the file `image`, mounted on `place` in this process's own mount namespace."""

    def __init__(self, image: Path, place: Path) -> None:
        self.image, self.place = image, place
        place.mkdir()
        subprocess.run(["mount", "-o", "loop", image, place], check=True)

    def written(self) -> str:
        """A number that grows with every write to the disk."""
        device = self.place.stat().st_dev
        return Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()[4]

    def flush(self) -> None:
        subprocess.run(["sync", "--file-system", self.place], check=True)

    def copy(self, target: Path) -> None:
        while True:
            before = self.written()
            subprocess.run(["cp", "--sparse=always", self.image, target], check=True)
            if self.written() == before:
                return

    def close(self) -> None:
        subprocess.run(["umount", self.place], check=True)
        self.place.rmdir()


@contextmanager
def disk(image: Path, place: Path) -> Iterator[Disk]:
    mounted = Disk(image, place)
    try:
        yield mounted
    finally:
        mounted.close()


def format_disk(image: Path) -> None:
    with image.open("wb") as file:
        file.truncate(_SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)


def cut(site: Site, original: Disk, moment: float, *, flushed: float | None, copy: Path) -> None:
    """Start a build, copy its disk at `moment`, with all written out at `flushed`, and end the build."""
    with site.watched() as watch, site.start(watch, *site.arguments(held=False)) as build:
        if flushed is not None:
            until(build, flushed)
            original.flush()
        until(build, moment)
        processes = [build.process.pid, *watch.members()]
        send(processes, signal.SIGSTOP)
        original.copy(copy)
        send(processes, signal.SIGKILL)
        build.process.wait()
        assert leftovers.until(lambda: not watch.members())


def until(build: Command, moment: float) -> None:
    started = float(Path(f"/proc/{build.process.pid}/stat").read_text().split()[21]) / os.sysconf("SC_CLK_TCK")
    time.sleep(max(0.0, started + moment - time.clock_gettime(time.CLOCK_BOOTTIME)))


def survive(template: Store, site: Site, image: Path, place: Path) -> Built:
    """Mount the copy, and go on there as after a reboot: the build."""
    with disk(image, place) as copied:
        again = Store(copied.place / "root", Path(template.environment["HOME"]))
        again.command("debug", "verify-store")
        built = again.command(*site.arguments(held=False))
        again.command("debug", "verify-store")
        left = leftovers.files(again.root)
        assert left == [], left
    return built


def main(template: Store, directory: Path, cuts: int) -> None:
    format_disk(directory / "disk")
    with disk(directory / "disk", directory / "mounted") as original:
        site = Site(template, directory, root=original.place / "root")
        length = site.length()
        original.copy(directory / "copy")
        built = survive(template, site, directory / "copy", directory / "other")
        assert built.ran == [], f"a build had ended, and this was lost: {built.ran}"
        for number in range(cuts):
            site.vary(number + 1)
            moment = length * (number + 0.5) / cuts
            flushed = (moment * 0.7, None, moment)[number % 3]
            cut(site, original, moment, flushed=flushed, copy=directory / "copy")
            survive(template, site, directory / "copy", directory / "other")
            print(f"cut at {moment:.2f} s", flush=True)


if __name__ == "__main__":
    main(Store(Path(sys.argv[1]), Path(sys.argv[2])), Path(sys.argv[3]), int(sys.argv[4]))
