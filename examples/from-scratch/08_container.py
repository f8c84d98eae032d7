"""8. All of it: a container runtime in one file.

    python3 08_container.py                             a shell's command in a root directory made on the spot
    python3 08_container.py DIRECTORY PROGRAM [ARG...]  a program in a directory that an image was unpacked to

Every line has been in one of the steps before.
"""

import os
import socket
import sys
import tempfile

import busybox
import linux

SHOW = "echo I am $(id -un), process $$ of $(hostname), networks: $(grep -c : /proc/net/dev); rm -r /bin; echo bye"
NEW = linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWNET | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC
PLAIN = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC


def isolate() -> None:
    linux.become_root()  # 2
    linux.unshare(NEW)  # 1
    linux.in_a_child(run)  # 3: the first child is PID 1 of the new pid namespace


def run() -> None:
    socket.sethostname("container")
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)

    root = overlay()
    linux.mount("proc", f"{root}/proc", "proc", PLAIN)  # 3
    linux.mount("tmpfs", f"{root}/dev", "tmpfs", linux.MS_NOSUID, "mode=755")
    for device in ("null", "zero", "full", "random", "urandom"):
        open(f"{root}/dev/{device}", "w").close()
        linux.mount(f"/dev/{device}", f"{root}/dev/{device}", flags=linux.MS_BIND)

    os.chdir(root)  # 4
    linux.pivot_root(".", ".")
    linux.umount(".", linux.MNT_DETACH)
    os.chdir("/")
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
    os.execvpe(command[0], command, environment)


def overlay() -> str:
    """5: the image stays as it is; what the program changes is in memory, and goes with the mount namespace."""
    linux.mount("tmpfs", work, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV)
    lower = os.path.abspath(image) if image else busybox.make_root(f"{work}/image")
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(f"{work}/{name}")
    # Bound first: a path that holds a colon or a comma could not be written as an option.
    linux.mount(lower, f"{work}/lower", flags=linux.MS_BIND)
    options = f"lowerdir={work}/lower,upperdir={work}/upper,workdir={work}/work,userxattr"
    linux.mount("overlay", f"{work}/merged", "overlay", data=options)
    return f"{work}/merged"


# What a real runtime does besides: control groups and capabilities (7), a network (6), more user ids than one, a filter
# of system calls, /proc paths masked, a terminal, signals passed on, and errors that say which of all this failed.

image, command = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 2 else ("", ["sh", "-c", SHOW])
with tempfile.TemporaryDirectory() as work:
    linux.in_a_child(isolate)
