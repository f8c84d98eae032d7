"""Paths that mean to lead out: of a context, an image, a mount, a destination. All of them stay inside."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path

import pytest

from tests.fakes.hostile import Attack, Put, fifo, folder, link, loop_device

pytest_plugins = ["tests.fakes.hostile_fixtures"]

# name: (Dockerfile, files, fragments, line). CANARY is a directory of the host that holds the file `secret`.
ESCAPES: dict[str, tuple[str, dict[str, Put], tuple[str, ...], int]] = {
    "a source above the context": (
        "FROM base\nCOPY ../../../etc/shadow /x\n",
        {},
        ("'/etc/shadow': not found",),
        2,
    ),
    "a link to a file of the host": (
        "FROM base\nCOPY a /x\n",
        {"a": link("/etc/shadow")},
        ("'/a': not found", "hint: /a is a symbolic link", "no link leads out"),
        2,
    ),
    "a link to a directory of the host": (
        "FROM base\nADD a/shadow /x\n",
        {"a": link("../../../../../../etc")},
        ("'/a/shadow': not found", "hint: /a is a symbolic link"),
        2,
    ),
    "a link to itself": ("FROM base\nCOPY a /x\n", {"a": link("a")}, ("'/a': not found",), 2),
    "links in a circle": ("FROM base\nCOPY a/x /x\n", {"a": link("b"), "b": link("a")}, ("'/a/x': not found",), 2),
    "a link of an image": (
        "FROM base AS b\nRUN ln -s /../../../.. /l\nFROM base\nCOPY --from=b /l/etc/shadow /x\n",
        {},
        ("'/l/etc/shadow': not found",),
        4,
    ),
    "a bind mount above its source": (
        "FROM base\nRUN --mount=type=bind,source=../../../../etc,target=/x cat /x/shadow\n",
        {},
        ("'/etc': not found",),
        2,
    ),
    "a bind mount through a link": (
        "FROM base\nRUN --mount=type=bind,source=a,target=/x cat /x/shadow\n",
        {"a": link("/etc")},
        (
            "/a to be mounted at /x: /a is a symbolic link to /etc in the source of the mount, which leads nowhere",
            "hint: no link leads out of the source of a mount",
        ),
        2,
    ),
    "a bind mount of a link to itself": (
        "FROM base AS b\nRUN ln -s x /x\nFROM base\nRUN --mount=type=bind,from=b,source=/x/y,target=/x true\n",
        {},
        ("'/x/y': not found", "hint: /x is a symbolic link"),
        4,
    ),
    "a cache mount through a link of another step": (
        "FROM base\nRUN --mount=type=cache,target=/c,id=links ln -sfn CANARY /c/l\n"
        "RUN --mount=type=cache,target=/x,id=links,source=l cat /x/secret\n",
        {},
        ("/l to be mounted at /x: /l is a symbolic link to ", "in the source of the mount, which leads nowhere"),
        3,
    ),
    "a secret below a file": (
        "FROM base\nRUN --mount=type=secret,id=s,target=/etc/passwd/x true\n",
        {},
        ("/etc/passwd/x cannot be reached: /etc/passwd is no directory in the image",),
        2,
    ),
    "a mount through a link in a circle": (
        "FROM base\nRUN ln -s m /l && ln -s l /m\nRUN --mount=type=bind,target=/l/x true\n",
        {},
        ("/l/x cannot be reached: /l is a symbolic link to m in the image, which leads in circles",),
        3,
    ),
    "a mount through a link to a file": (
        "FROM base\nRUN ln -s /etc/passwd /l\nRUN --mount=type=bind,target=/l/x true\n",
        {},
        ("/l/x cannot be reached: /l is a symbolic link to /etc/passwd in the image, which is no directory",),
        3,
    ),
    "a secret in /proc": (
        "FROM base\nRUN --mount=type=secret,id=s,target=/proc/self/x true\n",
        {},
        ("cannot mount anything at '/proc/self/x'",),
        2,
    ),
    "a mount over a device": (
        "FROM base\nRUN --mount=type=tmpfs,target=/dev/null true\n",
        {},
        ("/dev/null is not a directory in the image",),
        2,
    ),
    "a working directory of our descriptors": (
        "FROM base\nWORKDIR /proc/self/fd/7\nRUN ls\n",
        {},
        ("working directory /proc/self/fd/7 cannot be made",),
        3,
    ),
    "a working directory behind a link to our descriptors": (
        "FROM base\nRUN ln -s /proc/self/fd/3 /l\nWORKDIR /l\nRUN ls\n",
        {},
        ("working directory /l",),
        4,
    ),
    "a working directory in a circle": (
        "FROM base\nRUN ln -s l /l\nWORKDIR /l/x\n",
        {},
        ("too many symbolic links on the way to /l/x", "hint: they go in circles"),
        3,
    ),
    "a destination in a circle": (
        "FROM base\nRUN ln -s l /l\nCOPY Dockerfile /l/x\n",
        {},
        ("too many symbolic links", "hint: they go in circles"),
        3,
    ),
    "a file for a directory": (
        "FROM base\nCOPY e /\n",
        {"e/etc": "x"},
        ("cannot replace the directory /etc with a file",),
        2,
    ),
    "a directory for a file": (
        "FROM base\nCOPY d /etc/passwd\n",
        {"d/a": "x"},
        ("/etc/passwd",),
        2,
    ),
    "a socket": ("FROM base\nCOPY s /x\n", {"s": lambda path: _socket(path)}, ("'/s': not found",), 2),
    "a device of the context": (
        "FROM base\nCOPY d /d\nRUN dd if=/d of=/dev/null count=1\n",
        {"d": loop_device},
        ("did not complete successfully", "can't open '/d': Operation not permitted"),
        3,
    ),
    "the ignore file is a FIFO": (
        "FROM base\nCOPY . /x\n",
        {".dockerignore": fifo},
        (".dockerignore is not a regular",),
        0,
    ),
    "the ignore file is a directory": (
        "FROM base\nCOPY . /x\n",
        {".dockerignore": folder},
        (".dockerignore is not a regular file",),
        0,
    ),
    "the ignore file is endless": (
        "FROM base\nCOPY . /x\n",
        {".dockerignore": b"x\n" * (9 << 20)},
        (".dockerignore is larger than",),
        0,
    ),
}


@pytest.mark.parametrize("name", ESCAPES)
def test_leads_nowhere(attack: Attack, name: str) -> None:
    dockerfile, files, fragments, line = ESCAPES[name]
    attack.environment["S"] = "value"
    text = dockerfile.replace("CANARY", str(attack.canary))
    attack.build(text, "--secret", "id=s,env=S", files=files).refused(*fragments, line=line or None)


def test_a_wildcard_matches_nothing_behind_a_link(attack: Attack) -> None:
    text = "FROM base\nCOPY a*/shadow /x/\nRUN test ! -e /x/shadow\n"
    attack.build(text, files={"a": link("/etc")}).harmless()


# Links of an image that meant the host mean the image's own directory of that name.
INSIDE = {
    "COPY to a link": "RUN ln -s CANARY /l\nCOPY Dockerfile /l/made\n",
    "COPY to a relative link": "RUN ln -s ../../../../../../../CANARY /l\nCOPY Dockerfile /l/made\n",
    "COPY to a link to a file": "RUN ln -s CANARY/made /l\nCOPY Dockerfile /l\n",
    "WORKDIR": "RUN ln -s CANARY /l\nWORKDIR /l/made\n",
    "the target of a mount": "RUN ln -s CANARY /l\nRUN --mount=type=tmpfs,target=/l/made touch /l/made/x\n",
    "the target of a cache": "RUN ln -s ../../../../..CANARY /l\n"
    "RUN --mount=type=cache,target=/l/made touch /l/made/x\n",
    "the target of a secret": "RUN ln -s CANARY /l\n"
    "RUN --mount=type=secret,id=s,target=/l/made grep -q value /l/made\n",
    "the id of a cache": "RUN --mount=type=cache,id=../../../../../../CANARY,target=/c touch /c/made\n",
    "the stub of resolv.conf": "RUN rm -f /etc/resolv.conf || true\n"
    "COPY --from=links /resolv.conf /etc/resolv.conf\nRUN cat /etc/resolv.conf; echo x >> /etc/resolv.conf || true\n",
    "the stub of hosts": "COPY --from=links /hosts /etc/hosts\nRUN echo x >> /etc/hosts || true\n",
    "mount points": "COPY --from=links /points /\nRUN ls /dev /proc /sys > /dev/null\n",
}
_LINKS = """FROM base AS links
RUN mkdir /points && ln -s ../../../../../../CANARY/made /resolv.conf && ln -s CANARY/secret /hosts \\
 && for at in dev proc sys; do ln -s CANARY /points/$at; done
FROM scratch AS bare
COPY --from=base /bin /bin
COPY --from=base /etc/passwd /etc/passwd
FROM {0}
"""


@pytest.mark.parametrize("snapshotter", ["overlay", "copy"])
@pytest.mark.parametrize("name", INSIDE)
def test_stays_in_the_image(attack: Attack, name: str, snapshotter: str) -> None:
    configuration = attack.directory / "pybuild.toml"
    configuration.write_text(f"[worker]\nsnapshotter = '{snapshotter}'\n")
    attack.environment |= {"S": "value", "PYBUILD_CONFIG": str(configuration)}
    text = _LINKS.format("bare" if "links" in INSIDE[name] else "base") + INSIDE[name]
    outcome = attack.build(text.replace("CANARY", str(attack.canary)), "--secret", "id=s,env=S")
    assert outcome.ended.status in (0, 1, 3), outcome.ended.text
    if outcome.ended.status:
        assert "Dockerfile:" in outcome.ended.report


IGNORED = [
    "**/" * 1000 + "x",
    "*" * 5000,
    "a/" * 3000,
    "?" * 4000,
    "*a" * 16 + "b",
    "(a+)+$",
    "a\n" * 30_000,
    "!**\n**",
    "../../x\n/etc\n..\n.",
    "\0",
    "\\\\" * 1000,
]


@pytest.mark.parametrize("number", range(len(IGNORED)))
def test_ignore_patterns_take_no_time(attack: Attack, number: int) -> None:
    files: dict[str, Put] = {".dockerignore": IGNORED[number], "a" * 200: "x", "b/" + "a" * 200: "x"}
    assert attack.build("FROM base\nCOPY . /c\n", files=files).harmless().ended.seconds < 10


@pytest.mark.parametrize("pattern", ["[" * 2000, "[a-", "!", "\\", "[^]"])
def test_ignore_patterns_that_are_none(attack: Attack, pattern: str) -> None:
    outcome = attack.build("FROM base\nCOPY . /c\n", files={".dockerignore": f"fine\n{pattern}\n"})
    outcome.refused("failed parsing .dockerignore:", ".dockerignore:2", "hint:")


# --- local export -----------------------------------------------------------------------------------------------


def _export(attack: Attack, dockerfile: str) -> Path:
    destination = attack.directory / "out"
    attack.build(dockerfile, "-o", f"type=local,dest={destination}", files={"a": "ours\n"}).harmless()
    return destination


@pytest.mark.parametrize("waiting", ["etc", "etc/a", "etc/loop"])
def test_a_link_in_the_destination_leads_nowhere(attack: Attack, waiting: str) -> None:
    there = attack.directory / "out" / waiting
    there.parent.mkdir(parents=True)
    leads_to = {"etc": attack.canary, "etc/a": attack.canary / "secret", "etc/loop": Path("loop")}
    there.symlink_to(leads_to[waiting])
    destination = _export(attack, "FROM scratch\nCOPY a /etc/a\nCOPY a /etc/loop\n")
    assert (destination / "etc/a").read_text() == "ours\n"
    assert not (destination / "etc/a").is_symlink()


def test_what_is_deleted_in_a_destination_is_in_it(attack: Attack) -> None:
    """mode=delete removes links, never what they lead to."""
    destination = attack.directory / "out"
    (destination / "old/deep").mkdir(parents=True)
    for name in ("link", "etc", "old/deep/link"):
        (destination / name).symlink_to(attack.canary)
    output = f"type=local,mode=delete,dest={destination}"
    attack.build("FROM scratch\nCOPY a /etc/a\n", "-o", output, files={"a": "x"}).harmless()
    assert [str(path.relative_to(destination)) for path in sorted(destination.rglob("*"))] == ["etc", "etc/a"]


def test_an_export_gives_nobody_rights_on_this_host(attack: Attack) -> None:
    destination = _export(
        attack,
        "FROM base AS made\nRUN mkdir /o && cd /o && mknod disk b 8 0 && chmod 666 disk && cp /bin/busybox su "
        "&& chown 33 su && chmod 6755 su && ln -s /etc/shadow link && mkfifo pipe\n"
        "FROM scratch\nCOPY --from=made /o /\n",
    )
    found = {name: (destination / name).lstat() for name in os.listdir(destination)}
    assert sorted(found) == ["disk", "link", "pipe", "su"]
    assert all(info.st_uid == os.geteuid() for info in found.values())
    assert stat.S_IMODE(found["su"].st_mode) == 0o755
    assert stat.S_IMODE(found["disk"].st_mode) == 0o600
    assert os.readlink(destination / "link") == "/etc/shadow"


def test_an_export_to_a_file(attack: Attack) -> None:
    attack.build("FROM base\n", "-o", "type=local,dest=/etc/passwd").refused("is a file, not a directory", status=2)
    attack.build("FROM base\n", "-o", f"type=oci,dest={attack.directory}").refused("is a directory", status=2)


@pytest.mark.parametrize("kind", ["tar", "oci", "docker"])
def test_an_export_to_a_full_device(attack: Attack, kind: str) -> None:
    attack.build("FROM base\n", "-o", f"type={kind},dest=/dev/full").refused("No space left on device")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_files_that_nobody_may_read(attack: Attack) -> None:
    """Root may; but a file system may still say no."""
    if shutil.which("setpriv") is None:
        pytest.fail("setpriv is missing: install util-linux")
    context = attack.context({"Dockerfile": "FROM base\nCOPY secret /\n", "secret": "x"})
    (context / "secret").chmod(0)
    ended = attack.commands.run(
        *("--root", attack.root, "build", context),
        prefix=("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"),
    )
    attack.check(ended)
    assert ended.status in (1, 3), ended.text
    assert "secret" in ended.report
    assert "Permission denied" in ended.report


def _socket(path: Path) -> None:
    import socket

    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as server:  # its address must be short
        server.bind(path.name)
