"""1. A process sees the machine through its namespaces.

The kernel knows no containers. It knows processes, and each process points to one namespace of each kind: which
hostname it sees, which mounts, which process ids, which network. Processes usually share them with their parent.
A "container" is a process that does not.
"""

import os
import socket

import linux

KINDS = ("user", "uts", "mnt", "pid", "net", "ipc", "cgroup")


def namespaces() -> dict[str, str]:
    """The kernel shows them as links: a kind, and the number of the one that this process is in."""
    return {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in KINDS}


def of_its_own() -> None:
    # unshare(2) puts this process into new namespaces: a UTS namespace, which holds the hostname, and a user namespace.
    # Without the second one only root could do it: step 2 is about that.
    linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWUTS)

    before = socket.gethostname()
    socket.sethostname("container")
    print(f"child:   I was on {before!r}, now I am on {socket.gethostname()!r}")
    print("child:   new are", ", ".join(kind for kind in KINDS if namespaces()[kind] != mine[kind]))


mine = namespaces()
name = socket.gethostname()
for kind, target in mine.items():
    print(f"parent:  {kind:7} {target}")

linux.in_a_child(of_its_own)

# The child has ended, and with it its namespaces: nobody was in them any more. Nothing has to be cleaned up.
assert socket.gethostname() == name
assert namespaces() == mine
print(f"parent:  I am still on {name!r}")
