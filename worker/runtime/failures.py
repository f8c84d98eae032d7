"""From a failure that came as data out of a step's set-up to the error that the user sees. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping

from buildengine.errors import BuildError, HostError, InternalError, UserError
from worker.runtime.emulation import REGISTER_HINT

# How runc and crun say that the command of the user cannot be run.
_USERS = (
    "executable file",
    "exec format error",
    'exec: "',
    "no such file or directory: exec",
    "chdir to cwd",
    "chdir to",
)


def error(failure: Mapping[str, str]) -> BuildError:
    """`failure` has `fault` (user, host, internal, oci), `message`, and sometimes `hint` or `trace`."""
    fault, message = failure["fault"], failure["message"]
    if fault == "oci":
        return _of_oci_runtime(message)
    if fault == "user":
        no_shell = message == 'exec: "/bin/sh": no such file or directory'
        no_shell_hint = 'the image has no shell: RUN ["program", "argument"] needs none' if no_shell else None
        return UserError(message, hint=failure.get("hint") or no_shell_hint)
    if fault == "emulation":
        return HostError(
            f"an emulator cannot be registered for the step: {message}",
            hint=f"the kernel may be too old for it or forbid it: use Linux 6.7 or later, {REGISTER_HINT}",
        )
    if fault == "internal":
        return InternalError(f"a step could not be set up: {message}", hint=failure.get("trace"))
    hint = None
    if "not permitted" in message or "ermission denied" in message:
        hint = "pybuild needs root with CAP_SYS_ADMIN; in a container, run it privileged"
    return HostError(f"a step could not be set up: {message}", hint=hint)


def _of_oci_runtime(log: str) -> BuildError:
    """The last error of a log in JSON lines."""
    message = "it failed without a message"
    for line in log.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("level") in ("error", "fatal") and entry.get("msg"):
            message = str(entry["msg"])
    if any(words in message for words in _USERS):
        return UserError(message)
    return HostError(f"the OCI runtime could not start the step: {message}")
