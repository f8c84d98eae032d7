"""Cache truth of instructions: which words, arguments and flags make a step run again, and which do not.

What is asserted is which instructions ran: a step that ran without need is as wrong as one that did not.
"""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from tests.builds import FIXTURES, Store, write
from tests.fakes.two_copies import ALL, DOCKERFILE, again

pytest_plugins = [FIXTURES]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write(tmp_path / "context", {"Dockerfile": DOCKERFILE, "one": "1", "two": "2"})


# --- the Dockerfile and its arguments -----------------------------------------------------------------------------


STAGES = """\
FROM base AS {name}
RUN mkdir /out && echo {word} > /out/file
FROM base
COPY --from={name} /out /in
RUN cat /in/file
"""


async def test_a_renamed_stage_changes_nothing(store: Store, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": STAGES.format(name="build", word="x")})
    assert len((await store.build(context)).ran) == 3
    write(context, {"Dockerfile": STAGES.format(name="compile", word="x")})
    assert await again(store, context) == []
    write(context, {"Dockerfile": STAGES.replace("AS {name}", "").format(name="0", word="x")})
    assert await again(store, context) == []


async def test_a_stage_that_comes_to_the_same_keeps_its_consumers_hits(store: Store, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": STAGES.format(name="build", word="x")})
    await store.build(context)
    write(context, {"Dockerfile": STAGES.format(name="build", word="$(echo x)")})
    assert await again(store, context) == ["RUN mkdir /out && echo $(echo x) > /out/file"]
    assert await again(store, context) == []
    write(context, {"Dockerfile": STAGES.format(name="build", word="y")})
    assert len(await again(store, context)) == 3


async def test_what_nobody_needs_never_runs(store: Store, tmp_path: Path) -> None:
    """Neither steps, nor the base of a stage, nor the files it would copy."""
    dockerfile = """\
        FROM registry.invalid/nothing AS unreachable
        RUN false
        FROM base AS unused
        COPY nowhere /
        RUN false
        FROM unused AS further
        RUN false
        FROM base
        RUN true
        """
    context = write(tmp_path / "context", {"Dockerfile": dockerfile})
    built = await store.build(context)
    assert built.ran == ["RUN true"]
    assert [step.name for step in built.steps.values() if "false" in step.name or "nothing" in step.name] == []


async def test_a_target_runs_no_further_than_itself(store: Store, tmp_path: Path) -> None:
    dockerfile = "FROM base AS first\nRUN echo 1\nFROM first AS second\nRUN echo 2\n"
    context = write(tmp_path / "context", {"Dockerfile": dockerfile})
    assert (await store.build(context, "--target", "first")).ran == ["RUN echo 1"]
    assert await again(store, context) == ["RUN echo 2"]


async def test_metadata_runs_nothing(store: Store, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": "FROM base\nRUN echo 1\nCMD a\n"})
    await store.build(context)
    metadata = "LABEL a=b\nEXPOSE 80\nSTOPSIGNAL 9\nVOLUME /v\nHEALTHCHECK NONE\n"
    write(context, {"Dockerfile": f"FROM base\n{metadata}RUN echo 1\nENTRYPOINT a\nCMD b\nONBUILD RUN false\n"})
    assert await again(store, context, "--label", "x=y") == []


ARGUMENTS = """\
FROM base
ARG UNUSED=1
COPY one /one
RUN echo before
ARG WORD=default
RUN echo after
COPY two /two
"""
AFTER = ["RUN echo after", "COPY two /two"]


async def test_an_argument_runs_what_comes_after_it(store: Store, context: Path) -> None:
    write(context, {"Dockerfile": ARGUMENTS})
    await store.build(context)
    assert await again(store, context, "--build-arg", "WORD=default") == []
    assert await again(store, context, "--build-arg", "WORD=other") == AFTER
    assert await again(store, context, "--build-arg", "NEVER_DECLARED=1") == []
    assert await again(store, context, "--build-arg", "HTTP_PROXY=http://example.invalid") == []
    write(context, {"Dockerfile": ARGUMENTS.replace("default", "another")})
    assert await again(store, context) == AFTER


async def test_an_argument_in_words_alone_runs_what_uses_it(store: Store, tmp_path: Path) -> None:
    dockerfile = "FROM base\nARG DIR=a\nCOPY $DIR/file /file\nCOPY other /other\n"
    context = write(tmp_path / "context", {"Dockerfile": dockerfile, "a/file": "", "b/file": "", "other": ""})
    await store.build(context)
    assert await again(store, context, "--build-arg", "DIR=b") == [], "the same name, the same bytes"
    write(context, {"b/file": "x"})
    assert await again(store, context, "--build-arg", "DIR=b") == ["COPY b/file /file", "COPY other /other"]


async def test_the_environment_runs_what_comes_after_it(store: Store, context: Path) -> None:
    write(context, {"Dockerfile": "FROM base\nRUN echo 1\nENV A=1\nCOPY one /one\nRUN echo 2\n"})
    await store.build(context)
    write(context, {"Dockerfile": "FROM base\nRUN echo 1\nENV A=2\nCOPY one /one\nRUN echo 2\n"})
    assert await again(store, context) == ["RUN echo 2"]


@pytest.mark.parametrize("line", ["USER 1000", "WORKDIR /tmp", 'SHELL ["/bin/ash", "-c"]'])
async def test_who_runs_where_and_how_counts(store: Store, tmp_path: Path, line: str) -> None:
    context = write(tmp_path / "context", {"Dockerfile": "FROM base\nRUN echo 1\n"})
    await store.build(context)
    write(context, {"Dockerfile": f"FROM base\n{line}\nRUN echo 1\n"})
    assert "RUN echo 1" in await again(store, context)


@pytest.mark.parametrize(
    ("flags", "counts"),
    [
        (("--network", "none"), True),
        (("--shm-size", "1m"), True),
        (("--ulimit", "nofile=100"), True),
        (("--add-host", "x:10.0.0.1"), True),
        (("--label", "a=b"), False),
        (("--cgroup-parent", "/x"), False),
    ],
)
async def test_which_flags_count(store: Store, tmp_path: Path, flags: tuple[str, ...], counts: bool) -> None:
    context = write(tmp_path / "context", {"Dockerfile": "FROM base\nRUN echo 1\n"})
    await store.build(context)
    assert await again(store, context, *flags) == (["RUN echo 1"] if counts else [])


async def test_a_rebuilt_base_counts_by_its_layers(store: Store, tmp_path: Path) -> None:
    base = write(tmp_path / "base", {"Dockerfile": "FROM base\nCOPY file /\n", "file": "1"})
    context = write(tmp_path / "context", {"Dockerfile": "FROM mine\nRUN echo 1\n"})
    await store.build(base, "-t", "mine")
    await store.build(context)
    await store.build(base, "-t", "mine", "--label", "only=metadata")
    assert await again(store, context) == []
    await store.build(write(base, {"file": "2"}), "-t", "mine")
    assert await again(store, context) == ["RUN echo 1"]


async def test_a_linked_copy_does_not_depend_on_what_is_below_it(store: Store, context: Path) -> None:
    write(context, {"Dockerfile": "FROM base\nRUN echo 1\nCOPY --link one /one\nRUN cat /one\n"})
    await store.build(context)
    write(context, {"Dockerfile": "FROM base\nRUN echo 2\nCOPY --link one /one\nRUN cat /one\n"})
    built = await store.build(context)
    assert built.cached == ["COPY --link one /one"]
    assert built.ran == ["RUN echo 2", "LINK COPY --link one /one", "RUN cat /one"], "what links it runs nothing"


async def test_files_in_the_dockerfile_count_by_their_text(store: Store, context: Path) -> None:
    dockerfile = "FROM base\nCOPY <<END /greeting\nhello {}\nEND\nRUN <<END\ncat /greeting\nEND\n"
    write(context, {"Dockerfile": dockerfile.format("world")})
    await store.build(context)
    assert await again(store, write(context, {"Dockerfile": dockerfile.format("world") + "CMD x\n"})) == []
    assert len(await again(store, write(context, {"Dockerfile": dockerfile.format("moon")}))) == 2


async def test_an_archive_that_is_unpacked_counts_by_its_bytes(store: Store, context: Path) -> None:
    def pack(mtime: int) -> None:
        with tarfile.open(context / "a.tar", "w") as tar:
            info = tarfile.TarInfo("file")
            info.mtime = mtime
            tar.addfile(info)

    write(context, {"Dockerfile": "FROM base\nADD a.tar /\n"})
    pack(1)
    await store.build(context)
    os.utime(context / "a.tar")
    assert await again(store, context) == []
    pack(2)
    assert await again(store, context) == ["ADD a.tar /"]


def test_ways_to_give_the_same_context_share_the_cache(store: Store, context: Path) -> None:
    dockerfile = (context / "Dockerfile").read_bytes()
    assert store.command("build", "-f", "-", context, stdin=dockerfile).ran == ALL
    assert store.command("build", context).ran == []
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(context, ".")
    assert store.command("build", "-", stdin=packed.getvalue()).ran == []
    (context / "two").write_text("3")
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(context, ".")
    assert store.command("build", context).ran == ALL[2:]


# --- secrets ------------------------------------------------------------------------------------------------------


async def test_a_secret_is_in_no_key_but_its_name_is(store: Store, tmp_path: Path) -> None:
    run = "RUN --mount=type=secret,id={id},target=/run/secrets/s cat /run/secrets/s"
    context = write(tmp_path / "context", {"Dockerfile": f"FROM base\n{run.format(id='one')}\n"})
    secret = write(tmp_path, {"secret": "first"}) / "secret"
    assert (await store.build(context, "--secret", f"id=one,src={secret}")).step("RUN").output == "first"
    secret.write_text("second")
    assert await again(store, context, "--secret", f"id=one,src={secret}") == []
    assert await again(store, context) == [], "a hit needs no secret"
    write(context, {"Dockerfile": f"FROM base\n{run.format(id='two')}\n"})
    built = await store.build(context, "--secret", f"id=two,src={secret}")
    assert built.step("RUN").output == "second"


async def test_no_byte_of_a_secret_is_in_the_store(store: Store, tmp_path: Path) -> None:
    dockerfile = """\
        FROM base
        RUN --mount=type=secret,id=s,env=VALUE --mount=type=secret,id=s test "$VALUE" = "$(cat /run/secrets/s)"
        """
    context = write(tmp_path / "context", {"Dockerfile": dockerfile})
    secret = write(tmp_path, {"secret": "ephemeral-58151"}) / "secret"
    await store.build(context, "--secret", f"id=s,src={secret}", "-t", "app")
    holding = [path for path in store.root.rglob("*") if path.is_file() and b"ephemeral-58151" in path.read_bytes()]
    assert holding == []


# --- asking for no cache ------------------------------------------------------------------------------------------


FILTERED = """\
FROM base AS one
RUN echo one > /one
FROM base AS two
RUN echo two > /two
FROM base
COPY --from=one /one /one
COPY --from=two /two /two
RUN cat /one /two
"""


async def test_no_cache_runs_everything_and_its_results_are_the_cache_afterwards(store: Store, context: Path) -> None:
    await store.build(context)
    assert await again(store, context, "--no-cache") == ALL
    assert await again(store, context) == []


async def test_what_no_cache_made_replaces_what_was_cached(store: Store, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": "FROM base\nRUN head -c 8 /dev/urandom > /random\n"})
    made = []
    for number, flags in enumerate(((), ("--no-cache",), ())):
        await store.build(context, "-o", tmp_path / f"out{number}", *flags)
        made.append((tmp_path / f"out{number}/random").read_bytes())
    assert made[0] != made[1]
    assert made[1] == made[2]


async def test_no_cache_filter_runs_its_stage_and_what_it_changes(store: Store, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": FILTERED})
    await store.build(context)
    assert await again(store, context, "--no-cache-filter", "one") == ["RUN echo one > /one"]
    assert sorted(await again(store, context, "--no-cache-filter", "one,two")) == [
        "RUN echo one > /one",
        "RUN echo two > /two",
    ]
    write(context, {"Dockerfile": FILTERED.replace("echo one", "head -c 8 /dev/urandom")})
    await store.build(context)
    assert sorted(await again(store, context, "--no-cache-filter", "one")) == sorted(
        [
            "RUN head -c 8 /dev/urandom > /one",
            "COPY --from=one /one /one",
            "COPY --from=two /two /two",
            "RUN cat /one /two",
        ]
    )
    assert await again(store, context) == []


# --- the other snapshotter ----------------------------------------------------------------------------------------


async def test_the_copying_snapshotter_gives_the_same_hits_and_results(store: Store, tmp_path: Path) -> None:
    """For hosts without overlay. It uses the records of the other one, and leaves records for it."""
    dockerfile = """\
        FROM base AS build
        COPY one /one
        RUN --mount=type=bind,source=two,target=/two --mount=type=cache,target=/c cat /one /two > /both; rm /bin/vi
        FROM base
        COPY --from=build /both /both
        RUN echo more >> /both; ls /bin/vi
        """
    context = write(tmp_path / "context", {"Dockerfile": dockerfile, "one": "1", "two": "2"})
    store.environment["PYBUILD_WORKER_SNAPSHOTTER"] = "copy"
    assert store.config.worker.snapshotter == "copy"
    assert len((await store.build(context)).ran) == 4
    assert await again(store, context) == []
    await store.build(context, "-o", tmp_path / "out")
    assert (tmp_path / "out/both").read_text() == "12more\n"
    del store.environment["PYBUILD_WORKER_SNAPSHOTTER"]
    assert await again(store, context) == []
    write(context, {"two": "3"})
    assert len(await again(store, context)) == 3
    store.environment["PYBUILD_WORKER_SNAPSHOTTER"] = "copy"
    assert await again(store, context) == []
    await store.build(context, "-o", tmp_path / "other")
    assert (tmp_path / "other/both").read_text() == "13more\n"
