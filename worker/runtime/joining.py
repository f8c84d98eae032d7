"""One more process of a step that runs: forked by its supervisor, into the namespaces of its PID 1.

The supervisor's children are born into the step's pid namespace; the others are entered here. From then on every path
is the image's, as in PID 1 after pivot_root, and the same holds: nothing is imported, and nobody of the step may look
into this process before exec (the launcher has made it undumpable).
"""

from __future__ import annotations

import os

from worker.runtime import confine, init, messages, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import NoReturn

    from worker.runtime.host import Host

_ENTERED = (
    syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWNET
    | syscalls.CLONE_NEWCGROUP
)


def run(channel: _socket.socket, host: Host, first: int) -> NoReturn:
    """Never returns. `first` is a pidfd of PID 1; the request comes once this process is in the control group."""
    during = ["joining the container"]
    try:
        confine.die_with_parent()
        os.setsid()
        os.umask(0o022)
        syscalls.join_new_session_keyring()
        setting, fds = messages.receive(channel)
        process = messages.open_envelope(fds[0])["process"]
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        streams = fds[1:] if setting["stdin"] else [null, *fds[1:]]
        syscalls.setns(first, _ENTERED)
        during[0] = "confining the process"
        init.take_streams(channel, process, streams)
        channel, user = init.close_all_but(channel, [first] if setting["user"] else [])
        init.become(channel, host, process, user, mknod=not setting["nodev"], alone=False)
    except messages.Lost:
        pass
    except BaseException as error:
        init.report(channel, during[0], error)
    os._exit(1)
