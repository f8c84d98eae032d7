"""Cache mounts and bind mounts in whole builds: what is kept, who shares it, and what a step sees of the context."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.builds import FIXTURES, Store, write
from tests.fakes.build_gate import Gate

pytest_plugins = [FIXTURES]


def dockerfile(*instructions: str) -> dict[str, str | bytes]:
    return {"Dockerfile": "\n".join(("FROM base", *instructions)) + "\n"}


# --- cache mounts -------------------------------------------------------------------------------------------------


async def test_a_cache_mount_outlives_its_build_and_is_in_no_image(store: Store, tmp_path: Path) -> None:
    context = write(tmp_path / "context", dockerfile("RUN --mount=type=cache,target=/c echo kept > /c/file"))
    await store.build(context)
    write(context, dockerfile("RUN --mount=type=cache,target=/c cat /c/file"))
    built = await store.build(context, "-o", tmp_path / "out")
    assert built.step("RUN").output == "kept\n"
    assert not (tmp_path / "out/c").exists()


async def test_a_cached_step_leaves_its_cache_mount_alone(store: Store, tmp_path: Path) -> None:
    context = write(tmp_path / "context", dockerfile("RUN --mount=type=cache,target=/c echo run >> /c/runs"))
    for _ in range(2):
        await store.build(context)
    (runs,) = store.root.glob("cachemounts/*/runs")
    assert runs.read_text() == "run\n"


async def test_a_new_cache_mount_is_a_copy_of_its_base(store: Store, tmp_path: Path) -> None:
    first = "RUN --mount=type=cache,target=/c,from=seed,source=/seed cat /c/file; echo mine > /c/file"
    seed = "FROM base AS seed\nRUN mkdir /seed && echo {} > /seed/file\n"
    run = {"Dockerfile": seed.format("seed") + "FROM base\n" + first + "\n"}
    context = write(tmp_path / "context", run)
    assert (await store.build(context)).step("cat /c/file").output == "seed\n"
    run = {"Dockerfile": seed.format("seed") + "FROM base\n" + first + "; true\n"}
    assert (await store.build(write(context, run))).step("cat /c/file").output == "mine\n"


async def test_a_step_may_mount_one_cache_twice(store: Store, tmp_path: Path) -> None:
    for sharing in ("shared", "private", "locked"):
        mount = f"--mount=type=cache,id={sharing},sharing={sharing}"
        run = f"RUN {mount},target=/a {mount},target=/b echo x > /a/file; cat /b/file"
        context = write(tmp_path / "context", dockerfile(run))
        with trio.fail_after(20):
            assert (await store.build(context)).step("RUN").output == "x\n", sharing


async def test_without_cache_the_mounts_are_new_but_one_for_the_whole_build(store: Store, tmp_path: Path) -> None:
    mount = "--mount=type=cache,id=shared,target=/c"
    context = write(
        tmp_path / "context", dockerfile(f"RUN {mount} touch /c/1; ls /c", f"RUN {mount} touch /c/2; ls /c")
    )
    await store.build(context)
    built = await store.build(context, "--no-cache")
    assert [built.step(f"touch /c/{n}").output for n in (1, 2)] == ["1\n", "1\n2\n"]


async def test_no_cache_filter_renews_the_mounts_of_its_stage_alone(store: Store, tmp_path: Path) -> None:
    stage = "FROM base AS {0}\nRUN --mount=type=cache,id={0},target=/c ls /c; touch /c/{0} /{0}\n"
    gathered = "FROM base\nCOPY --from=one /one /\nCOPY --from=two /two /\n"
    context = write(tmp_path / "context", {"Dockerfile": stage.format("one") + stage.format("two") + gathered})
    await store.build(context)
    assert (await store.build(context, "--no-cache-filter", "one")).step("id=one").output == ""
    assert len(list(store.root.glob("cachemounts/*/two"))) == 1


SHARING = "RUN --mount=type=cache,id=x,target=/x,sharing={sharing} touch /x/{name}; ls /x; {wait}"


@pytest.mark.parametrize(
    ("sharing", "seen"), [("shared", "first\nsecond\n"), ("private", "second\n"), ("locked", "first\nlast\nsecond\n")]
)
def test_two_commands_at_one_cache_mount(store: Store, tmp_path: Path, sharing: str, seen: str) -> None:
    gate = Gate(store)
    wait = gate.run.removeprefix("RUN --mount=type=cache,id=gates,target=/gates ")
    hold = SHARING.format(sharing=sharing, name="first", wait=f"{wait}; touch /x/last")
    first = write(
        tmp_path / "first", dockerfile(hold.replace("RUN ", "RUN --mount=type=cache,id=gates,target=/gates "))
    )
    second = write(tmp_path / "second", dockerfile(SHARING.format(sharing=sharing, name="second", wait="true")))
    with store.start("build", first) as holding:
        holding.until_output(gate.said)
        with store.start("build", second) as coming:
            if sharing == "locked":
                coming.until("RUN", "running")
                gate.open()
            output = coming.wait().step("RUN").output
            if sharing != "locked":
                gate.open()
        holding.wait()
    assert output == seen


# --- bind mounts --------------------------------------------------------------------------------------------------


BIND = "RUN --mount=type=bind,target=/src{options} {command}"


async def test_a_bound_context_is_seen_without_being_copied(store: Store, tmp_path: Path) -> None:
    context = write(
        tmp_path / "context",
        dockerfile(BIND.format(options="", command="cd /src; find . -type f | sort; cat /src/sub/file"))
        | {"sub/file": "content", "hidden": "", ".dockerignore": "hidden\n"},
    )
    (context / "link").symlink_to("sub/file")
    built = await store.build(context, "-o", tmp_path / "out")
    assert built.step("RUN").output == "./.dockerignore\n./Dockerfile\n./sub/file\ncontent"
    assert not (tmp_path / "out/src").exists()


async def test_a_bound_context_counts_by_what_is_mounted(store: Store, tmp_path: Path) -> None:
    run = BIND.format(options=",source=sub", command="cat /src/file")
    context = write(tmp_path / "context", dockerfile(run) | {"sub/file": "1", "other": "1"})
    await store.build(context)
    write(context, {"other": "2", "Dockerfile": "# a remark\n" + str(dockerfile(run)["Dockerfile"])})
    assert (await store.build(context)).ran == []
    write(context, {"sub/file": "2"})
    assert (await store.build(context)).step("RUN").output == "2"
    (context / "sub/file").chmod(0o700)
    assert len((await store.build(context)).ran) == 1
    write(context, {"sub/file": "1"})
    (context / "sub/file").chmod(0o644)
    assert (await store.build(context)).ran == [], "back again"


async def test_a_single_file_of_the_context_is_mounted(store: Store, tmp_path: Path) -> None:
    run = "RUN --mount=type=bind,source=dir/script,target=/script sh /script"
    context = write(tmp_path / "context", dockerfile(run) | {"dir/script": "echo hello", "dir/other": "1"})
    assert (await store.build(context)).step("RUN").output == "hello\n"
    write(context, {"dir/other": "2"})
    assert (await store.build(context)).ran == []


async def test_nothing_that_a_step_writes_gets_into_the_context(store: Store, tmp_path: Path) -> None:
    command = "echo changed > /src/file; touch /src/new; cat /src/file"
    context = write(tmp_path / "context", dockerfile(BIND.format(options=",rw", command=command)) | {"file": "mine"})
    built = await store.build(context)
    assert built.step("RUN").output == "changed\n"
    assert sorted(path.name for path in context.iterdir()) == ["Dockerfile", "file"]
    assert (context / "file").read_text() == "mine"
    read_only = BIND.format(options="", command="touch /src/new")
    assert (
        "Read-only file system"
        in (await store.build(write(context, dockerfile(read_only)), status=1)).step("RUN").output
    )


async def test_the_layer_of_a_bound_context_is_made_once(store: Store, tmp_path: Path) -> None:
    files = {"file": "x"}
    context = write(tmp_path / "context", dockerfile(BIND.format(options="", command="cat /src/file")) | files)
    (context / ".dockerignore").write_text("Dockerfile\n")
    await store.build(context)
    write(context, dockerfile(BIND.format(options="", command="cat /src/file; true")))
    await store.build(context)
    listed = store.command("du", "--format", "json", "--filter", "type==source.local")
    assert listed.stdout.count("local source for") == 1, listed.stdout


async def test_a_stage_is_bound_by_content(store: Store, tmp_path: Path) -> None:
    stages = "FROM base AS one\nRUN mkdir /d; echo {} > /d/file; date +%N > /unseen\n"
    run = "FROM base\nRUN --mount=type=bind,from=one,source=/d,target=/d cat /d/file\n"
    context = write(tmp_path / "context", {"Dockerfile": stages.format("x") + run})
    assert (await store.build(context)).step("cat /d/file").output == "x\n"
    write(context, {"Dockerfile": stages.format("$(echo x)") + run})
    assert len((await store.build(context)).ran) == 1, "the same directory"
    write(context, {"Dockerfile": stages.format("y") + run})
    assert (await store.build(context)).step("cat /d/file").output == "y\n"
