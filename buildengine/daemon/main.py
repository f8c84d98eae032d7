"""`pybuildd`: the daemon, started as buildkitd is, with its flags and its file.

`--version` prints four words as buildkitd does: `docker buildx` reads the third.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from buildengine import BUILDKIT, __version__
from buildengine.errors import BuildError, ConfigError, HostError

if TYPE_CHECKING:
    from buildengine.daemon.daemonconfig import DaemonConfig

VERSION = f"{BUILDKIT}+pybuild.{__version__}"
_USAGE_STATUS = 2


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0 after a signal, 2 for wrong flags, otherwise that of the error."""
    words = sys.argv[1:] if arguments is None else arguments
    if any(word in ("--version", "-v", "-version") for word in words):
        print("pybuildd", "pybuild", VERSION, __version__)
        return 0
    from buildengine.daemon import flags

    if any(word in ("--help", "-h", "-help") for word in words):
        print(flags.usage())
        return 0
    try:
        line = flags.parse(words)
    except ConfigError as error:
        return _failed(error, status=_USAGE_STATUS)
    try:
        from buildengine.daemon import daemonconfig

        return _run(daemonconfig.load(line))
    except BuildError as error:
        return _failed(error)


def _run(config: DaemonConfig) -> int:
    """Serve until a signal comes."""
    import os

    if os.geteuid() != 0:
        raise HostError("pybuildd needs root to run build steps", hint="run it with sudo, or in a container as root")
    from buildengine.daemon import residency
    from worker.runtime import descriptors
    from worker.runtime.isolate import private_mounts

    private_mounts()  # before any thread exists
    descriptors.take_all()
    residency.begin()
    import trio

    from buildengine.daemon.log import Log
    from buildengine.daemon.running import told
    from buildengine.daemon.serving import serve

    log = Log(sys.stderr, config.log_format)
    for warning in config.warnings:
        log.warning(warning)
    try:
        trio.run(serve, config, config.engine.environment, log)
    except BaseExceptionGroup as group:
        raise told(group) from None
    return 0


def _failed(error: BuildError, status: int | None = None) -> int:
    print(f"pybuildd: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    return error.exit_status if status is None else status


if __name__ == "__main__":
    sys.exit(main())
