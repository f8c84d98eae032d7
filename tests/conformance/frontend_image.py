"""BuildKit's Dockerfile frontend as an image: `dockerfile-frontend` of the directory that $PEER names.

It is built from BuildKit's source, which Debian has as well:

    CGO_ENABLED=0 go build ./frontend/dockerfile/cmd/dockerfile-frontend

A missing program is a failure, never a skip.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.builds import Store, write

CAPABILITIES = ("inputs", "subrequests", "contexts", "gitquerystring")
_CAPS = ",".join(f"moby.buildkit.frontend.{name}" for name in CAPABILITIES)
_DOCKERFILE = f"""\
FROM scratch
LABEL moby.buildkit.frontend.network.none="true" moby.buildkit.frontend.caps="{_CAPS}"
COPY dockerfile-frontend /bin/dockerfile-frontend
ENTRYPOINT ["/bin/dockerfile-frontend"]
"""


def push(store: Store, registry: str, work: Path) -> str:
    """The name of the image in the registry."""
    program = Path(os.environ.get("PEER") or "/nowhere") / "dockerfile-frontend"
    assert os.access(program, os.X_OK), (
        f"no dockerfile-frontend in PEER={program.parent}: build ./frontend/dockerfile/cmd/dockerfile-frontend of "
        "BuildKit's source with CGO_ENABLED=0"
    )
    context = write(work, {"Dockerfile": _DOCKERFILE})
    shutil.copy(program, context)
    name = f"{registry}/frontends/dockerfile:1"
    store.command("build", context, "--push", "-t", name)
    return name
