"""2. Root in here, nobody out there.

A user namespace has user ids of its own. Which of them are which outside is a table, /proc/PID/uid_map. Whoever
makes a user namespace has every capability in it, but only over what belongs to it: its own hostname, its own
mounts, its own network. So an ordinary user can make all the other namespaces, and "root" of a rootless container is
no more than that user for everybody else. Run this as an ordinary user: run by root, root is root on both sides.
"""

import os
import socket
import tempfile

import linux


def rootless() -> None:
    linux.unshare(linux.CLONE_NEWUSER)

    # Without a table nobody is known in here: everybody, we too, is the "overflow" user.
    print("inside, before the map: uid", os.getuid(), "gid", os.getgid())

    # One line of the table: 1 id, that is 0 inside and `uid` outside. An ordinary user may map himself only, and has to
    # give up setgroups(2) first: with it he could leave a group that the mode of some file shuts out.
    for file, line in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{file}", "w") as control:
            control.write(line)
    print("inside, after the map:  uid", os.getuid(), "gid", os.getgid())

    with open("made-by-root", "w") as file:
        file.write("hello\n")
    print("inside, the file belongs to uid", os.stat("made-by-root").st_uid)

    # All capabilities, and yet: the UTS namespace that we are in still is the machine's, and that is not ours.
    try:
        socket.sethostname("mine")
    except OSError as error:
        print("inside, changing the machine's hostname:", error.strerror)

    # A new one is. From here on every step begins like this: linux.become_root() is what stands above.
    linux.unshare(linux.CLONE_NEWUTS)
    socket.sethostname("mine")
    print("inside, changing our own: now it is", socket.gethostname())


uid, gid = os.getuid(), os.getgid()
with tempfile.TemporaryDirectory() as directory:
    os.chdir(directory)
    linux.in_a_child(rootless)
    owner = os.stat("made-by-root").st_uid
    assert owner == uid
    print("outside, the file belongs to uid", owner)
    os.chdir("/")
