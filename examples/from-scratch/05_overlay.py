"""5. Images are layers: overlay.

A container wants to write, its image must not change, and a copy would take long. An overlay mount shows directories
on top of each other: the lower ones are read only, the upper one takes the changes. Afterwards the upper directory
holds exactly what was changed. Packed as a tar archive it is a layer of an image: this is how a build step becomes one.
"""

import os
import stat
import tempfile

import busybox
import linux


def enter() -> None:
    linux.become_root()
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("tmpfs", work, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV)
    os.chdir(work)

    # The image: two layers. The second one is laid over the first, and brings one file.
    busybox.make_root("base")
    os.makedirs("app/etc")
    with open("app/etc/motd", "w") as motd:
        motd.write("welcome\n")

    for name in ("one", "two"):
        start(name)
    with open("one/merged/etc/motd", "a") as motd:  # copied up: the first write to it takes the whole file along
        motd.write("changed by one\n")
    os.remove("one/merged/etc/passwd")  # a whiteout: a lower layer cannot forget, so the upper one says "it is gone"
    with open("one/merged/new", "w") as new:
        new.write("made by one\n")

    print("one sees:", sorted(os.listdir("one/merged/etc")), "and a new file:", os.path.exists("one/merged/new"))
    print("two sees:", sorted(os.listdir("two/merged/etc")), "and a new file:", os.path.exists("two/merged/new"))
    assert os.path.getsize("app/etc/motd") == len("welcome\n"), "the image was changed"

    print("what one has changed, and what a layer of it would hold:")
    for directory, _, files in os.walk("one/upper"):
        for file in files:
            path = f"{directory}/{file}"
            print(f"  {path.removeprefix('one/upper')}: {described(os.lstat(path))}")


def start(container: str) -> None:
    """The root of a container: nothing is copied, however large the image is."""
    for directory in ("upper", "work", "merged"):
        os.makedirs(f"{container}/{directory}")
    options = f"lowerdir=app:base,upperdir={container}/upper,workdir={container}/work"  # the topmost is named first
    linux.mount("overlay", f"{container}/merged", "overlay", data=f"{options},userxattr")


def described(status: os.stat_result) -> str:
    if stat.S_ISCHR(status.st_mode):  # overlay's own sign; in the tar archive of a layer it is an empty file .wh.NAME
        return f"a whiteout, character device {os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    return f"a file of {status.st_size} bytes"


with tempfile.TemporaryDirectory() as work:
    linux.in_a_child(enter)
