"""7. No more than its share: control groups and capabilities.

Namespaces say what a process sees. A control group says how much it may use: memory, processor, number of processes. It
is a directory, a limit is a file in it, and a process is put into it by writing its number. That needs root, or a part
of the tree that root has given away.
"""

import ctypes
import os
import sys

import linux

V2 = os.path.exists("/sys/fs/cgroup/cgroup.controllers")  # one tree for all limits; version 1 has a tree for each kind
GROUP = f"/sys/fs/cgroup/{'' if V2 else 'pids/'}from-scratch-{os.getpid()}"
PR_CAPBSET_READ, PR_CAPBSET_DROP, CAP_SYS_CHROOT = 23, 24, 18


def limited() -> None:
    with open(f"{GROUP}/cgroup.procs", "w") as control:
        control.write(str(os.getpid()))  # our children will be in it as well

    held, hold = os.pipe()
    children = []
    try:
        while True:  # what a fork bomb does
            child = os.fork()
            if child == 0:
                os.close(hold)
                os.read(held, 1)  # until the bomb has failed
                os._exit(0)
            children.append(child)
    except BlockingIOError as error:
        print(f"with {len(children)} children, fork says: {error.strerror}")
    os.close(hold)
    for child in children:
        os.waitpid(child, 0)


def capable() -> None:
    # What root may do is a set of capabilities. What is dropped from the bounding set is lost to every program that is
    # executed from now on, whoever runs it: how a container's root gets to be less than the machine's.
    libc = ctypes.CDLL(None)
    print("may chroot:", bool(libc.prctl(PR_CAPBSET_READ, CAP_SYS_CHROOT)), end=", ")
    libc.prctl(PR_CAPBSET_DROP, CAP_SYS_CHROOT)
    print("after dropping it:", bool(libc.prctl(PR_CAPBSET_READ, CAP_SYS_CHROOT)))
    os.execvp("chroot", ["chroot", "/", "true"])


def refused() -> None:
    linux.become_root()
    if (child := os.fork()) == 0:
        os.dup2(os.open("/dev/null", os.O_WRONLY), 2)
        capable()
    assert os.waitpid(child, 0)[1] != 0, "it was allowed"
    print("and the program chroot is refused, although root runs it")


linux.in_a_child(refused)

if os.geteuid() != 0:
    sys.exit("the other half of this step needs root")
os.mkdir(GROUP)
try:
    with open(f"{GROUP}/pids.max", "w") as maximum:
        maximum.write("5")
    linux.in_a_child(limited)
finally:
    os.rmdir(GROUP)  # a group without processes is removed like a directory
