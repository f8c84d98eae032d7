"""The process of a step: how it ends, who it is, what it finds. The same for each runtime."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import trio

from buildengine.errors import HostError, UserError
from tests.fakes.runtime_elf import CRASH, MACHINE, write_program
from tests.fakes.runtime_steps import PATH, Steps, upper
from worker.runtime.runtime import Kind, Runtime, open_runtime
from worker.runtime.spec import BindMount, Rlimit, SecretFile

pytest_plugins = ["tests.fakes.runtime_fixtures"]


async def test_exit_code_and_streams(runtime: Runtime, steps: Steps) -> None:
    result = await steps.sh(runtime, "echo out; echo err >&2; exit 42")
    assert (result.code, result.exit.signal) == (42, 0)
    assert (result.out, result.err) == ("out\n", "err\n")
    assert not result.exit.oom_killed
    assert result.exit.peak_memory > 0


async def test_death_by_signal_is_not_an_exit_code(runtime: Runtime, steps: Steps) -> None:
    spec = steps.spec("/crash")
    write_program(upper(spec) / "crash", CRASH[MACHINE])
    result = await steps.run(runtime, spec)
    assert (result.code, result.exit.signal) == (0, signal.SIGILL)


async def test_identity(runtime: Runtime, steps: Steps) -> None:
    result = await steps.sh(
        runtime,
        "id -u; id -g; id -G; umask; hostname; pwd; echo $A/$B; echo $$; grep -c . /proc/self/environ",
        uid=1000,
        gid=100,
        groups=(7, 8),
        hostname="builder",
        cwd="/tmp",
        env=(PATH, "A=1", "B=two words", "A=last"),
    )
    assert result.out.splitlines()[:8] == ["1000", "100", "100 7 8", "0022", "builder", "/tmp", "last/two words", "1"]


async def test_working_directory_is_made_and_belongs_to_the_user(runtime: Runtime, steps: Steps) -> None:
    spec = steps.spec("/bin/pwd", cwd="/home/deep/er", uid=1000, gid=1001)
    assert (await steps.run(runtime, spec)).out == "/home/deep/er\n"
    made = (upper(spec) / "home/deep/er").stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o7777) == (1000, 1001, 0o755)


async def test_working_directory_that_is_a_file(runtime: Runtime, steps: Steps) -> None:
    with pytest.raises(UserError, match="working directory /etc/passwd is not a directory"):
        await steps.sh(runtime, "true", cwd="/etc/passwd")


async def test_command_that_is_not_there(runtime: Runtime, steps: Steps) -> None:
    with pytest.raises(UserError, match=r"executable file .?.?nope.*not found|\"nope\": executable file not found"):
        await steps.run(runtime, steps.spec("nope"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("/etc/passwd", "permission denied"),
        ("/bin", "permission denied"),
        ("/nope/at/all", "no such file or directory"),
        ("/tmp/script", "its interpreter or dynamic loader is not in the image"),
        ("/tmp/garbage", "exec format error"),
    ],
)
async def test_commands_that_cannot_run(builtin: Runtime, steps: Steps, argv: str, message: str) -> None:
    spec = steps.spec(argv)
    for name, contents in (("script", b"#!/no/such/interpreter\n"), ("garbage", b"\x7fELF\x01garbage")):
        (upper(spec) / "tmp").mkdir(exist_ok=True)
        (upper(spec) / "tmp" / name).write_bytes(contents)
        (upper(spec) / "tmp" / name).chmod(0o755)
    with pytest.raises(UserError, match=message):
        await steps.run(builtin, spec)


async def test_the_users_streams_can_be_opened_by_name(runtime: Runtime, steps: Steps) -> None:
    result = await steps.sh(runtime, "echo a > /dev/stdout; echo b > /dev/stderr", uid=1000, gid=1000)
    assert (result.out, result.err) == ("a\n", "b\n")


async def test_standard_input_is_empty_and_nothing_else_is_open(runtime: Runtime, steps: Steps) -> None:
    result = await steps.sh(runtime, "cat; ls -l /proc/self/fd | grep -v ' /proc/' | wc -l; ls /proc/self/fd | wc -l")
    assert result.out.split()[-1] == "4"  # 0, 1, 2 and the directory that ls reads


async def test_no_signal_is_ignored_or_blocked(kind: Kind, steps: Steps) -> None:
    ignored = (signal.SIGQUIT, signal.SIGRTMAX)
    previous = [signal.signal(number, signal.SIG_IGN) for number in ignored]
    try:
        async with open_runtime(kind) as ours:
            result = await steps.run(ours, steps.spec("/bin/grep", "-E", "Sig(Ign|Blk)", "/proc/self/status"))
    finally:
        for number, handler in zip(ignored, previous, strict=True):
            signal.signal(number, handler)
    assert [line.split()[1].strip("0") for line in result.out.splitlines()] == ["", ""]


async def test_ulimits(runtime: Runtime, steps: Steps) -> None:
    limits = (Rlimit(name="nofile", soft=100, hard=200), Rlimit(name="core", soft=0, hard=0))
    result = await steps.sh(runtime, "ulimit -Sn; ulimit -Hn; ulimit -c", rlimits=limits)
    assert result.out.split() == ["100", "200", "0"]


async def test_ulimit_above_what_the_engine_has(runtime: Runtime, steps: Steps) -> None:
    with pytest.raises(HostError, match="limit"):
        await steps.sh(runtime, "true", rlimits=(Rlimit(name="nofile", soft=1 << 31, hard=1 << 31),))


async def test_secrets(runtime: Runtime, steps: Steps) -> None:
    secret = b"hunter2" * 10
    spec = steps.spec(
        "/bin/sh", "-c", "cat /run/secrets/key; echo; stat -c '%a %u %g' /run/secrets/key; echo $TOKEN;"
        " grep -c ' /run/secrets/key .*tmpfs' /proc/self/mountinfo; (echo x > /run/secrets/key) 2>&1",
        mounts=(SecretFile(target="/run/secrets/key", uid=1000, gid=7, mode=0o440),),
        secret_env=("TOKEN",),
    )  # fmt: skip
    result = await steps.run(runtime, spec, {"/run/secrets/key": secret, "TOKEN": b"t0ken"})
    assert result.out.splitlines()[:4] == [secret.decode(), "440 1000 7", "t0ken", "1"]
    assert "Read-only" in result.out
    assert not (upper(spec) / "run").exists()
    assert "hunter2" not in repr(spec)


async def test_large_environment_and_output(runtime: Runtime, steps: Steps) -> None:
    big = "x" * 100_000
    result = await steps.sh(runtime, "echo ${#A}; head -c 5000000 /dev/zero", env=(PATH, f"A={big}"))
    assert result.out[:7] == "100000\n"
    assert len(result.out) == 5_000_007


async def test_steps_run_side_by_side(runtime: Runtime, steps: Steps, tmp_path: Path) -> None:
    """Each waits until all have come: none could, if they ran one after another."""
    count = 6
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    script = f"touch /m/$0; until [ $(ls /m | wc -l) = {count} ]; do sleep 0.01; done"
    bind = BindMount(target="/m", source=str(meeting))
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for number in range(count):
                spec = steps.spec("/bin/sh", "-c", script, str(number), mounts=(bind,))
                nursery.start_soon(steps.run, runtime, spec)


async def test_cancelling_kills_and_waits(runtime: Runtime, steps: Steps) -> None:
    spec = steps.spec("/bin/sh", "-c", "trap '' TERM INT; echo go; sleep 1000 & sleep 1000")
    with trio.CancelScope() as scope:
        await runtime.run(spec, secrets={}, on_output=lambda _fd, _data: scope.cancel())
    assert scope.cancelled_caught
    assert (await steps.run(runtime, steps.spec("/bin/true"))).code == 0


async def test_an_output_callback_that_fails_kills_the_step(runtime: Runtime, steps: Steps) -> None:
    def fail(_fd: int, _data: bytes) -> None:
        raise LookupError("full")

    with pytest.raises(LookupError):
        await runtime.run(steps.spec("/bin/sh", "-c", "echo; sleep 1000"), secrets={}, on_output=fail)


async def test_what_a_step_leaves_running_is_killed(runtime: Runtime, steps: Steps) -> None:
    with trio.fail_after(20):
        result = await steps.sh(runtime, "(setsid sleep 1000; echo never) & (trap '' HUP; sleep 1000) & echo done")
    assert (result.code, result.out) == (0, "done\n")
