"""3. A tree of processes of its own, and /proc.

In a new pid namespace the first process is number 1. It cannot see any other than its descendants, so it cannot
send them signals either. Like every PID 1 it has duties: orphans become its children, and it has to wait for them. When
it ends, the kernel kills all the others: that is how a container stops without anything left behind.
"""

import os

import linux


def enter() -> None:
    linux.become_root()
    # A process keeps its number, so unshare(2) does not move us: the children that we have from now on are inside.
    linux.unshare(linux.CLONE_NEWPID | linux.CLONE_NEWNS)
    print(f"outside: I am {os.getpid()}, and my child will be 1")
    linux.in_a_child(first)


def first() -> None:
    print(f"inside:  I am {os.getpid()}, and my parent is {os.getppid()}: not to be seen from here")

    # /proc still is a view of the old namespace. A new proc file system shows the one that it is mounted in. The mount
    # namespace is new, so nobody else gets to see it; MS_PRIVATE makes sure that it is not handed on to the old one.
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    print("inside:  /proc shows", sorted(int(name) for name in os.listdir("/proc") if name.isdigit()))

    # An orphan: our child has a child, and ends before it does.
    told, tell = os.pipe()
    if (child := os.fork()) == 0:
        if os.fork() == 0:
            os.read(told, 1)  # until the parent has gone
            print(f"orphan:  I am {os.getpid()}, and now my parent is {os.getppid()}")
        os._exit(0)
    os.waitpid(child, 0)
    os.write(tell, b".")
    orphan, _ = os.wait()  # PID 1 reaps what it never forked
    print(f"inside:  {child} was my child, {orphan} was not, and I waited for both")


linux.in_a_child(enter)
