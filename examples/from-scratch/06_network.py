"""6. A network of its own: veth.

A new network namespace has a loopback device, which is down, and nothing else: no address, no route, no port of the
machine. That is what `RUN --network=none` means. A veth pair is a cable: two devices, what goes into one comes out of
the other, and either may be moved into another namespace. A bridge is a switch for many of them; add NAT, and
this is the network of a container.
"""

import os
import socket
import subprocess

import linux


def enter() -> None:
    linux.become_root()
    # Both ends are ours: this namespace plays the machine, the one of the child is the container. Nothing that is done
    # here is done to the real network of the machine.
    linux.unshare(linux.CLONE_NEWNET)
    print("host:      a new namespace has", devices())

    ready, made = os.pipe(), os.pipe()
    if (child := os.fork()) == 0:
        linux.unshare(linux.CLONE_NEWNET)
        os.write(ready[1], b".")
        os.read(made[0], 1)
        container()
        os._exit(0)
    os.read(ready[0], 1)

    ip("link add host0 type veth peer name eth0")
    ip(f"link set eth0 netns {child}")  # one end of the cable goes to where that process is
    ip("addr add 10.0.0.1/24 dev host0")
    ip("link set host0 up")
    with socket.create_server(("10.0.0.1", 8000)) as server:
        print("host:      now", devices(), "and a server on 10.0.0.1:8000")
        os.write(made[1], b".")
        connection, (peer, _) = server.accept()
        connection.sendall(b"hello, " + peer.encode())
        connection.close()
    if os.waitpid(child, 0)[1] != 0:
        raise SystemExit("the container failed")


def container() -> None:
    ip("link set lo up")
    ip("addr add 10.0.0.2/24 dev eth0")
    ip("link set eth0 up")
    print("container:", devices())
    with socket.create_connection(("10.0.0.1", 8000), timeout=60) as connection:
        print("container: the host says", connection.recv(100).decode())

    # There is a cable to one other machine, and no route to any other: the internet is not there.
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=60)
    except OSError as error:
        print("container: beyond it:", error.strerror)


def devices() -> str:
    return ", ".join(name for _, name in socket.if_nameindex())


def ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


linux.in_a_child(enter)
