"""Every flag of `pybuild build` and every other command, without a daemon, before one, and before one behind ssh.

A row is what somebody types. The status, what is printed, the steps and what became of them, and the files that are
left are the same. `{work}` in a row is a directory that each side has for itself; `{context}` is the same for all.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.builds import FIXTURES, PYBUILD, Built, Store, write
from tests.fakes.daemon import daemon
from tests.fakes.remote_command import Remote, remote

pytest_plugins = [FIXTURES]

DOCKERFILE = """\
FROM base AS made
ARG WHO=world
RUN echo "hello $WHO" > /hello
FROM scratch AS last
COPY --from=made /hello /
COPY a.txt /srv/
LABEL of=file
"""
SEES = """\
FROM base AS made
ARG WHO
RUN --mount=type=secret,id=word --mount=type=secret,id=file \\
    (cat /etc/hosts /run/secrets/*; ulimit -n; grep /dev/shm /proc/mounts; ls /sys/class/net; echo $WHO) > /seen
FROM scratch
COPY --from=made /seen /
"""
POLICY = {"rules": [{"action": "DENY", "selector": {"identifier": "docker-image://docker.io/library/base:*"}}]}
SSH = """\
#!/bin/sh
while test "$1" != --; do shift; done
shift 2
exec sh -c "$*"
"""
ALLOWED = ("--allow-insecure-entitlement", "network.host")
GIVEN = {"SOURCE_DATE_EPOCH": "1700000000", "WORD": "from the environment", "WHO": "of the environment"}
VARYING = {
    r"\d+(\.\d+)?s\b": "SECONDS",
    r"\d{4}-\d\d-\d\dT[\d:.]+Z": "TIME",
    r"\b[0-9a-z]{24,25}\b": "ID",
    r"\b[0-9a-f]{64}\b": "DIGEST",
    r"\b[0-9a-f]{32}\b": "REF",
    r"[0-9.]+[kMG]?B": "SIZE",
}
Run = Callable[..., Built]
Sides = Mapping[str, Run]


@pytest.fixture(scope="module")
def sides(store_with_base: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    """What runs a command: here, before a daemon, and before another one through what passes for ssh."""
    place = tmp_path_factory.mktemp("table")
    stores = [store_with_base.copy(place / name) for name in ("here", "there", "ssh")]
    write(place / "bin", {"ssh": SSH})
    (place / "bin/ssh").chmod(0o755)
    path = f"{place}/bin:{PYBUILD.parent}:{os.environ['PATH']}"
    with ExitStack() as stack:
        near, far = (
            remote(stack.enter_context(daemon(store.root, place / f"at-{store.root.name}", *ALLOWED)), store)
            for store in stores[1:]
        )
        behind = Remote(
            f"ssh://elsewhere{far.address.removeprefix('unix://')}", {**stores[2].environment, "PATH": path}
        )
        yield {"here": stores[0].command, "there": near.run, "ssh": behind.run}


def told(side: str, run: Run, words: str, context: Path, stdin: bytes = b"", status: int = 0) -> Any:
    """What a user has seen of it, and what was left in {work}."""
    work = context.parent / side
    work.mkdir(exist_ok=True)
    filled = [word.format(work=work, context=context) for word in shlex.split(words)]
    built = run(*filled, status=status, stdin=stdin, environment=GIVEN, cwd=context)
    ended = [step for step in built.steps.values() if not status or step.outcome == "failed"]  # others may be cancelled
    steps = {(step.name, step.outcome, step.output) for step in ended}
    left = {str(path.relative_to(work)): path for path in work.rglob("*") if path.is_file()}
    readable = {name: path for name, path in left.items() if not name.endswith(".tar") and "/blobs/" not in name}
    files = {name: path.read_bytes() for name, path in readable.items()}
    shown = (built.stdout, built.error, sorted(built.warnings))
    return _plain([shown, steps, sorted(left), files], str(work))


def _plain(value: Any, work: str) -> Any:
    match value:
        case bytes():
            return _plain(value.decode(errors="replace"), work)
        case str():
            for pattern, common in VARYING.items():
                value = re.sub(pattern, common, value)
            return value.replace(work, "WORK")
        case dict():
            return {name: _plain(each, work) for name, each in value.items()}
        case set() | list() | tuple():
            return type(value)(_plain(each, work) for each in value)
    return value


def same(sides: Sides, words: str, context: Path, *, ssh: bool = False, **more: Any) -> Any:
    """What is the same. With `ssh` also through that."""
    here = told("here", sides["here"], words, context, **more)
    assert told("there", sides["there"], words, context, **more) == here
    assert not ssh or told("ssh", sides["ssh"], words, context, **more) == here
    return here


@pytest.fixture
def context(tmp_path: Path) -> Path:
    files = {"Dockerfile": DOCKERFILE, "Sees": SEES, "a.txt": "public", "word": "from a file"}
    files |= {"Scratch": "FROM scratch\nARG TARGETARCH\nCOPY a.txt /$TARGETARCH/\n"}
    files |= {"policy.json": json.dumps(POLICY), "Odd": "from base AS Made\nCMD x\n", "other/hello": "from another"}
    return write(tmp_path / "context", files)


# --- builds -------------------------------------------------------------------------------------------------------

BUILDS: Mapping[str, str] = {
    "plainly": "build . -o {work}/out",
    "--no-cache-filter": "build . --no-cache-filter made -o {work}/out",
    "--no-cache": "build . --no-cache -o {work}/out",
    "--target, --build-arg": "build . --target last --build-arg WHO -o {work}/out",
    "--file": "build -f Sees . -o {work}/out --secret id=word,env=WORD --secret id=file,src=word --build-arg WHO=me "
    "--add-host db:10.1.2.3 --ulimit nofile=100:200 --shm-size 8m --network none",
    "--allow": "build -f Sees . -o {work}/out --network host --allow network.host",
    "--platform": "build -f Scratch . --platform linux/amd64,linux/arm64 -o {work}/out",
    "--build-context": "build . --build-context made=other -o {work}/out",
    "--output tar": "build . -o type=tar,dest={work}/out.tar -o type=oci,dest={work}/oci.tar -t app:1",
    "--tag, --label, --load": "build . -t app:1 -t app:2 --label a=b --load --iidfile {work}/iid",
    "--annotation": "build . -o type=oci,tar=false,dest={work}/layout --annotation manifest:a=b -t app:3",
    "--provenance": "build . -o {work}/out --provenance mode=min",
    "--metadata-file": "build . -t app:4 --metadata-file {work}/metadata --iidfile {work}/iid",
    "--progress quiet": "build . --progress quiet -t app:5",
    "--progress none": "build . --progress none -t app:6",
    "--cgroup-parent": "build . --cgroup-parent some/where --no-cache -o {work}/out",
    "--call outline": "build --call outline .",
    "--call targets": "build --call targets,format=json .",
    "--opt": "build . --opt target=made --opt build-arg:WHO=opt -o type=cacheonly",
    "--explain": "build . --explain --progress none -o type=cacheonly",
}


@pytest.mark.parametrize("flags", BUILDS)
def test_builds(flags: str, sides: Sides, context: Path) -> None:
    same(sides, BUILDS[flags], context, ssh=True)


GIVEN_ON_STDIN: Mapping[str, tuple[str, bytes]] = {
    "the Dockerfile": ("build -f - . -o {work}/out", b"FROM base AS made\nFROM scratch\nCOPY a.txt /\n"),
    "a Dockerfile alone": ("build - -o type=cacheonly", b"FROM base\nRUN echo alone\n"),
    "nothing": ("build - -o type=cacheonly", b""),
}


@pytest.mark.parametrize("what", GIVEN_ON_STDIN)
def test_standard_input(what: str, sides: Sides, context: Path) -> None:
    words, data = GIVEN_ON_STDIN[what]
    same(sides, words, context, stdin=data, status=1 if what == "nothing" else 0)


MISTAKES: Mapping[str, tuple[str, int]] = {
    "a flag": ("build --nothing .", 2),
    "a context": ("build nothing", 1),
    "a file": ("build -f nothing .", 1),
    "a target": ("build --target nothing .", 1),
    "an output": ("build -o type=nothing .", 2),
    "an attribute": ("build -o type=oci,nothing=1,dest={work}/x .", 1),
    "a secret's file": ("build --secret id=word,src=nothing .", 2),
    "a cache": ("build --cache-to type=nothing .", 1),
    "a policy": ("build --source-policy-file policy.json .", 1),
    "a frontend": ("build --frontend nothing .", 1),
    "a question": ("build --call nothing .", 1),
    "what is odd": ("build --check -f Odd .", 1),
    "two of standard input": ("build -f - -", 1),
    "a scanner": ("build --sbom generator=127.0.0.1:1/x -o {work}/out .", 1),
    "a base": ("build --pull .", 1),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake: str, sides: Sides, context: Path) -> None:
    words, status = MISTAKES[mistake]
    seen = same(sides, words, context, status=status)
    assert "error: " in seen[0][1].lower() or "WARNING: " in seen[0][0]


# --- other commands -----------------------------------------------------------------------------------------------

COMMANDS: Mapping[str, tuple[str, int]] = {
    "lint": ("lint Odd", 1),
    "du": ("du --filter type=frontend --verbose", 0),
    "du of what is not known": ("du --filter nothing=1", 1),
    "prune": ("prune -f --filter type=frontend", 0),
    "prune with limits": ("prune -f --max-used-space 1TB --reserved-space 1TB --filter type=frontend", 0),
    "prune of what is not known": ("prune -f --filter nothing=1", 1),
    "prune without an answer": ("prune", 2),
    "history logs": ("history logs nothing", 1),
    "history inspect": ("history inspect nothing", 1),
    "history rm": ("history rm nothing", 1),
    "image ls": ("image ls --format '{{{{.Repository}}}}:{{{{.Tag}}}}' base", 0),
    "image inspect": ("image inspect nothing", 1),
    "image history": ("image history --format '{{{{.CreatedBy}}}}' --no-trunc base", 0),
    "image tag": ("image tag base named:1", 0),
    "image tag of nothing": ("image tag nothing named:2", 1),
    "image rm": ("image rm named:1", 0),
    "image save": ("image save -o {work}/saved.tar base", 0),
    "image load": ("image load -i nothing", 1),
    "image prune": ("image prune -f", 0),
    "pull": ("pull 127.0.0.1:1/nothing", 1),
    "push": ("push base 127.0.0.1:1/nothing", 1),
    "imagetools inspect": ("imagetools inspect 127.0.0.1:1/nothing", 1),
    "imagetools create": ("imagetools create -t 127.0.0.1:1/x 127.0.0.1:1/y", 1),
    "debug platforms": ("debug platforms", 0),
    "debug dump-llb": ("debug dump-llb nothing", 1),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command: str, sides: Sides, context: Path) -> None:
    words, status = COMMANDS[command]
    same(sides, words, context, status=status)
