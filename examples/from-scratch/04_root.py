"""4. Another root directory: pivot_root.

An image is a directory tree. A container has it as "/". chroot(2) looks like the tool for that and is none: it only
changes where paths begin, everything else stays mounted, and who is root can get back out. pivot_root(2) swaps the
root mount of a mount namespace; then the old one can be unmounted, and there is nothing left to get out to.
"""

import os
import tempfile

import busybox
import linux


def enter() -> None:
    linux.become_root()
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)

    # A tmpfs is seen in this mount namespace only, and gone with it. pivot_root wants a mount point for the new root: a
    # directory of an image would be bound to itself.
    linux.mount("tmpfs", work, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV)
    root = busybox.make_root(f"{work}/root")
    linux.mount(root, root, flags=linux.MS_BIND | linux.MS_REC)
    print("before:", ", ".join(sorted(os.listdir("/"))))

    # Both names are the same: the old root then lies on top of the new one, and is unmounted from there.
    # MNT_DETACH, since this very Python still has files of it open.
    os.chdir(root)
    linux.pivot_root(".", ".")
    linux.umount(".", linux.MNT_DETACH)
    os.chdir("/")
    print("after: ", ", ".join(sorted(os.listdir("/"))))

    # The classic way out of a chroot: up, as often as it takes.
    os.chdir("../" * 50)
    print("and fifty times ..:", ", ".join(sorted(os.listdir("."))))

    # From here on, programs and libraries come from the image. Python itself lives on, but could import nothing more.
    os.execv("/bin/sh", ["sh", "-c", 'echo "now I am $(readlink /bin/sh), and I see $(ls / | wc -l) names in /"'])


with tempfile.TemporaryDirectory() as work:
    linux.in_a_child(enter)
    assert os.listdir(work) == [], "the mounts were seen here"
    print("outside:", work, "is empty: what was mounted on it was never here")
