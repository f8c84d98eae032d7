"""Images and commands that attack whoever runs them: the engine's Python, its look-ups, this host's devices."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.overlay import TreeMount
from tests.fakes.hostile import Attack, Put, link
from tests.fakes.runtime_elf import elf_interpreter, exit_with_errno_of_opening, write_program
from tests.fakes.runtime_steps import KINDS
from worker.mounts.tree import open_tree
from worker.runtime import isolate, runtime

pytest_plugins = ["tests.fakes.hostile_fixtures"]

EVIL = b"import posix\nfd = posix.open('/PWNED', 65, 0o644)\n"  # O_WRONLY | O_CREAT; needs no other module


def _config(attack: Attack, kind: str) -> tuple[str, Path]:
    file = attack.directory / "pybuild.toml"
    file.write_text(f"[worker]\nruntime = '{kind}'\n")
    return "--config", file


def _shadows() -> dict[str, Put]:
    """What the engine's own Python would import, at the very paths where it would look."""
    standard, ours = sysconfig.get_path("stdlib"), Path(runtime.__file__).parents[2]
    names = ["os", "codecs", "io", "abc", "stat", "posixpath", "genericpath", "site", "sitecustomize", "usercustomize"]
    names += ["encodings/__init__", "encodings/utf_8", "encodings/ascii", "encodings/idna", "encodings/latin_1"]
    names += ["traceback", "linecache", "pwd", "grp", "struct", "socket", "select", "json/__init__", "warnings", "re"]
    files: dict[str, Put] = {f"rootfs{standard}/{name}.py": EVIL for name in names}
    files |= {f"rootfs{ours}/worker/runtime/{name}.py": EVIL for name in ("init", "confine", "messages", "targets")}
    files["rootfs/etc/nsswitch.conf"] = "passwd: evil\ngroup: evil\nhosts: evil\n"
    files["rootfs/etc/ld.so.preload"] = "/evil.so\n"
    files["rootfs/evil.so"] = b"\x7fELF evil"
    return files


def test_an_image_that_shadows_our_python(attack: Attack) -> None:
    """Every way through the set-up of a step, in an image whose every module leaves a mark."""
    text = """FROM base
COPY rootfs /
RUN test ! -e /PWNED
USER builder
WORKDIR /made/here
RUN test "$(id -un)" = builder && test ! -e /PWNED
USER 12345:6789
RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t --mount=type=secret,id=s test ! -e /PWNED
USER root
RUN exit 0; test ! -e /PWNED
"""
    attack.environment["S"] = "value"
    files = _shadows()
    attack.build(text, "--secret", "id=s,env=S", files=files).harmless()
    for last, fragment in (
        ('RUN ["/nope"]', 'exec: "/nope": no such file or directory'),
        ('RUN ["/etc/nsswitch.conf"]', "permission denied"),
        ('RUN ["/evil.so"]', "permission denied"),
        ("WORKDIR /etc/nsswitch.conf", "is not a directory"),
        ("RUN test -e /PWNED", "did not complete successfully: exit code: 1"),
    ):
        attack.build(f"FROM base\nCOPY rootfs /\n{last}\n", files=files).refused(fragment, line=3)


@pytest.mark.machine("x86_64")  # a program in its machine code
@pytest.mark.parametrize("kind", KINDS)
def test_an_image_that_runs_our_python(attack: Attack, kind: str) -> None:
    """/proc/self/exe is this host's interpreter; with a loader of the image's it tries to write to itself."""
    loader = elf_interpreter(Path(sys.executable).resolve())
    files: dict[str, Put] = {
        f"rootfs{loader}": lambda path: write_program(path, exit_with_errno_of_opening("/proc/self/exe")),
        "rootfs/script": _script,
        "rootfs/linked": link("/proc/self/exe"),
    }
    for command in ("/proc/self/exe", "/script", "/linked"):
        outcome = attack.run(
            *_config(attack, kind),
            *("build", "-o", "type=cacheonly"),
            attack.context({"Dockerfile": f'FROM base\nCOPY rootfs /\nRUN ["{command}"]\n', **files}),
        )
        outcome.refused()
        assert any(f"exit code: {code}" in outcome.ended.report for code in (26, 30)) or kind != "builtin"


def _script(path: Path) -> None:
    path.write_text("#!/proc/self/exe\n")
    path.chmod(0o755)


PASSWD = {
    "a FIFO": "mkfifo /etc/passwd",
    "a device": "mknod /etc/passwd c 1 5",
    "a device of the host": "mknod /etc/passwd b 7 0",
    "a directory": "mkdir /etc/passwd",
    "endless": "dd if=/dev/zero of=/etc/passwd bs=1M count=9 2>/dev/null",
    "a link to the host": "ln -s ../../../../../../etc/shadow /etc/passwd",
    "a link to /proc": "ln -s /proc/self/environ /etc/passwd",
    "a link to a device": "ln -s /dev/zero /etc/passwd",
    "a link to itself": "ln -s passwd /etc/passwd",
    "gone": "true",
    "of odd numbers": "printf 'builder:x:\u0663:3::/:/\\nbuilder:x:"
    + "9" * 5000
    + ":0::/:/\\n:::\\n:\\n' > /etc/passwd",
    "not UTF-8": "printf 'b\\377ilder:x:1:1\\n\\0' > /etc/passwd",
}


@pytest.mark.parametrize("name", PASSWD)
def test_users_of_an_odd_passwd(attack: Attack, name: str) -> None:
    made = f"FROM base\nRUN rm /etc/passwd; {PASSWD[name]}\n"
    for what in ("USER builder\nRUN true\n", "COPY --chown=builder Dockerfile /x\n"):
        outcome = attack.build(made + what).refused("hint:", line=4 if "USER" in what else 3)
        assert (
            "no matching entry in passwd" in outcome.ended.report or "the image's /etc/passwd" in outcome.ended.report
        )
    attack.build(made + "RUN true\nUSER 1000:1000\nCOPY --chown=1000:1000 Dockerfile /x\n").harmless()


def test_a_home_that_no_process_can_have(attack: Attack) -> None:
    text = "FROM base\nRUN printf 'odd:x:5:5::/a\\000b:/bin/sh\\n' > /etc/passwd\nUSER odd\nRUN test $HOME = /\n"
    attack.build(text).harmless()


# --- devices ----------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[int]:
    """The number of a block device that root of this host can read, and that nobody in a build may."""
    (tmp_path / "disk").write_bytes(b"disk of the host".ljust(1 << 20, b"\0"))
    made = subprocess.run(
        ["losetup", "-f", "--show", tmp_path / "disk"], capture_output=True, text=True, check=True
    )  # fmt: skip
    name = made.stdout.strip()
    yield os.stat(name).st_rdev
    subprocess.run(["losetup", "-d", name], check=True)


# How a host's control groups can lie: as here, the newer hierarchy where it is (beside the older ones, on many hosts),
# nothing but the newer one, none at all.
_CLEAR = "grep -o ' /sys/fs/cgroup[^ ]*' /proc/self/mountinfo | sort -r | while read at; do {0} umount -l $at; done; "
GROUPS = {
    "as they are": "",
    "unified": _CLEAR.format("case $at in */unified|/sys/fs/cgroup) continue;; esac;"),
    "v2": _CLEAR.format("") + "mount -t cgroup2 none /sys/fs/cgroup && ",
    "none": _CLEAR.format(""),
}
HELPLESS = {("runc", "unified"), ("runc", "none"), ("crun", "none")}  # they start nothing there


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("kind", KINDS)
def test_devices_of_this_host(attack: Attack, kind: str, groups: str, disk: int) -> None:
    """Made by a step, or brought along by an image: no step reads it, whatever holds the devices back."""
    text = f"""FROM base
COPY disk /brought
RUN mknod /made b {os.major(disk)} {os.minor(disk)}; mknod /dev/made b {os.major(disk)} {os.minor(disk)}; \\
    cat /brought /made /dev/made; mknod /mem c 1 1; head -c 1 /mem; head -c 1 /dev/mem; exit 3
"""
    context = attack.context(
        {"Dockerfile": text, "disk": lambda path: os.mknod(path, 0o60666, disk)},
    )
    prefix = ("unshare", "--mount", "sh", "-c", GROUPS[groups] + 'exec "$@"', "sh") if GROUPS[groups] else ()
    outcome = attack.run(*_config(attack, kind), "build", "-o", "type=cacheonly", context, prefix=prefix)
    assert "disk of the host" not in outcome.ended.text
    if outcome.ended.status == 3 and (kind, groups) in HELPLESS:
        assert "the OCI runtime could not start the step" in outcome.ended.report
        return
    outcome.refused("exit code: 3")
    assert outcome.ended.text.count("not permitted") + outcome.ended.text.count("ermission denied") >= 4


def test_the_engine_opens_no_device_of_an_image(tmp_path: Path) -> None:
    """Opening some devices does something; so where the engine reads trees, it cannot."""
    isolate.private_mounts()
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    os.mknod(tmp_path / "lower/null", 0o20666, os.makedev(1, 3))
    lower, upper, work = (str(tmp_path / name) for name in ("lower", "upper", "work"))
    for tree in (
        TreeMount(lowers=(lower,)),
        TreeMount(lowers=(lower, upper)),
        TreeMount(lowers=(lower,), upper=upper, work=work),
    ):
        with open_tree(tree) as root, pytest.raises(PermissionError):
            os.open("null", os.O_RDONLY, dir_fd=root)


DEEP = "FROM base AS deep\nRUN cd /tmp; for i in $(seq 220); do mkdir {0}; cd {0}; done 2>/dev/null; true\n".format(
    "a" * 20
)


def test_a_tree_deeper_than_any_path(attack: Attack) -> None:
    """No tool can name what is down there; whoever has to read it says so, and the store can delete it."""
    root = attack.directory / "root"
    attack.run("image", "save", "-o", attack.directory / "base.tar", "base").harmless()
    attack.run("image", "load", "-i", attack.directory / "base.tar", root=root).harmless()
    attack.build(DEEP, root=root).harmless()
    for more, output in (("", "oci"), ("", "local"), ("FROM base\nCOPY --from=deep /tmp /x\n", "cacheonly")):
        destination = attack.directory / f"out.{output}"
        outcome = attack.build(DEEP + more, "-o", f"type={output},dest={destination}", root=root).refused()
        assert "too long" in outcome.ended.report or "longer than Linux allows" in outcome.ended.report
    attack.run("prune", "-af", root=root).harmless()
    attack.run("debug", "verify-store", root=root).harmless()


# --- what steps print -------------------------------------------------------------------------------------------

NOISE = "printf 'a\\033[31mb\\033]0;owned\\007\\r\\n\\x9b31m\\x1bPq\\x1b\\\\\\\\\\xe2\\x80\\xaereversed\\0\\n' "


@pytest.mark.parametrize("mode", ["plain", "rawjson", "quiet", "none"])
def test_what_a_step_prints(attack: Attack, mode: str) -> None:
    outcome = attack.build(f"FROM base\nRUN {NOISE}; {NOISE} >&2; false\n", "--progress", mode)
    outcome.refused("did not complete successfully: exit code: 1", line=2)
    assert "\u202e" not in outcome.ended.report


def test_names_of_escape_sequences(attack: Attack) -> None:
    text = "FROM base\nRUN cd / && touch \"$(printf 'a\\nhint: evil\\033[31m')\"\nCOPY --from=base /a* /nope/x/\n"
    attack.build(text).harmless()
    attack.build('FROM base\nCOPY ["a\\nb\\u001b", "/"]\n').refused("not found", line=2)
    attack.build("FROM base\nENV A='x\x1b\\y' B=\x07\nRUN false \x1b[2J\n").refused("exit code: 1", line=3)
    attack.build("FROM base AS \x1b[31m\n").refused(line=1)


def test_a_line_of_megabytes(attack: Attack) -> None:
    outcome = attack.build("FROM base\nRUN head -c 8000000 /dev/zero | tr '\\0' x; false\n", "--progress", "quiet")
    outcome.refused("exit code: 1", line=2)
    assert len(outcome.ended.text) < 200_000


def test_steps_that_kill_and_leave_things_running(attack: Attack) -> None:
    for command in ("kill -9 -1; kill -9 1; true", "(sleep 1000 &); setsid sleep 1000 & true", "exec 1>&- 2>&-"):
        outcome = attack.build(f"FROM base\nRUN {command}\n").harmless()
        assert outcome.ended.seconds < 20


@pytest.mark.parametrize("limit", ["nofile=0", "nofile=3", "nproc=1", "fsize=1", "stack=1", "core=0", "data=1"])
def test_limits_that_leave_nothing(attack: Attack, limit: str) -> None:
    """The step may fail of it; the engine does not, and says no nonsense."""
    outcome = attack.build("FROM base\nRUN true\n", "--ulimit", limit, "--no-cache")
    assert outcome.ended.status in (0, 1), outcome.ended.text
