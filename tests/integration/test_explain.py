"""`build --explain` names the true cause: one kind of change at a time, each in a build of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from cache import explained
from tests.builds import FIXTURES, Built, Store, make_base, write
from tests.fakes.daemon import daemon
from tests.fakes.git_server import git_over_http, make
from tests.fakes.http_server import Reply, Request, serve
from tests.fakes.remote_command import remote
from tests.integration.test_push import serving

pytest_plugins = [FIXTURES]

DOCKERFILE = """\
FROM base AS made
ARG VERSION=1
ARG API_TOKEN
ENV MODE=fast
WORKDIR /work
USER root
COPY src /src
RUN echo $VERSION $MODE > /made && cat /src/a /src/b >> /made
FROM base
COPY --from=made /made /made
RUN cat /made
"""
FILES: Mapping[str, str] = {"Dockerfile": DOCKERFILE, "src/a": "a\n", "src/b": "b\n", "src/sub/c": "c\n"}
COPY, RUN, LAST = "COPY src /src", "RUN echo", "RUN cat /made"
Change = Callable[[Path], object]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write(tmp_path / "context", FILES)


def edited(old: str, new: str) -> Change:
    """The Dockerfile with one text in the place of another."""

    def change(context: Path) -> None:
        text = (context / "Dockerfile").read_text()
        assert old in text
        write(context, {"Dockerfile": text.replace(old, new)})

    return change


def written(files: Mapping[str, str]) -> Change:
    return lambda context: write(context, files)


def unchanged(_context: Path) -> None:
    """What changes is on the command line."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """After `change`, or with `after` in the place of the flags `before`, the step with `step` in its name ran because
    of `cause`; `says` is in the text and its details, `hides` is not."""

    change: Change = unchanged
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    step: str
    cause: str
    says: tuple[str, ...]
    hides: tuple[str, ...] = ()


CASES = {
    "content": Case(change=written({"src/a": "A\n"}), step=COPY, cause="files", says=("other content", "src/a")),
    "same size, same time": Case(
        change=lambda context: (write(context, {"src/a": "x\n"}),),
        step=COPY,
        cause="files",
        says=("other content: src/a",),
    ),
    "added": Case(
        change=written({"src/new": "n", "src/d/e": "e"}), step=COPY, cause="files", says=("src/new", "src/d/e", "added")
    ),
    "removed": Case(
        change=lambda context: shutil.rmtree(context / "src/sub"),
        step=COPY,
        cause="files",
        says=("1 file removed: src/sub/c",),
    ),
    "mode": Case(
        change=lambda context: (context / "src/a").chmod(0o755),
        step=COPY,
        cause="files",
        says=("another mode: src/a", "0644 -> 0755"),
    ),
    "many files": Case(
        change=written({f"src/{n:02}": "" for n in range(20)}),
        step=COPY,
        cause="files",
        says=("20 files added", "src/07", "and 12 more"),
        hides=("src/08",),
    ),
    "ignored": Case(
        change=written({".dockerignore": "src/sub\n"}),
        step=COPY,
        cause="ignore file",
        says=("the ignore file changed: 1 file removed: src/sub/c", "ignored now"),
    ),
    "argument": Case(
        before=("--build-arg", "VERSION=1.0"),
        after=("--build-arg", "VERSION=2.0"),
        step=RUN,
        cause="argument",
        says=("the build argument VERSION changed", "was  1.0", "now  2.0"),
    ),
    "default of an argument": Case(
        change=edited("VERSION=1", "VERSION=2"),
        step=RUN,
        cause="argument",
        says=("the build argument VERSION changed", "was  1", "now  2"),
    ),
    "secret argument": Case(
        before=("--build-arg", "API_TOKEN=swordfish"),
        after=("--build-arg", "API_TOKEN=halibut"),
        step=RUN,
        cause="argument",
        says=("the build argument API_TOKEN changed", "not shown"),
        hides=("swordfish", "halibut"),
    ),
    "text in the Dockerfile": Case(
        before=("-f", "{context}/Inline"),
        change=lambda context: write(context, {"Inline": INLINE.replace("b=2", "b=3")}),
        after=("-f", "{context}/Inline"),
        step="COPY <<END /conf",
        cause="command",
        says=("the text in the Dockerfile was edited", "was  a=1 ↵ b=2", "now  a=1 ↵ b=3"),
    ),
    "what is mounted": Case(
        before=("-f", "{context}/Inline"),
        change=written({"src/a": "A\n"}),
        after=("-f", "{context}/Inline"),
        step="RUN --mount=type=bind",
        cause="files",
        says=("other content: src/a",),
    ),
    "environment": Case(
        change=edited("MODE=fast", "MODE=slow"),
        step=RUN,
        cause="environment",
        says=("the environment variable MODE changed", "was  fast", "now  slow"),
    ),
    "environment of an argument": Case(
        change=unchanged,
        before=("--build-arg", "VERSION=1.0", "-f", "{context}/Other"),
        after=("--build-arg", "VERSION=2.0", "-f", "{context}/Other"),
        step="RUN true",
        cause="argument",
        says=("the build argument VERSION changed", "was  1.0", "now  2.0"),
    ),
    "command": Case(
        change=edited("/src/b >> /made", "/src/b /src/b >> /made"),
        step=RUN,
        cause="command",
        says=("the command was edited", "now  echo $VERSION $MODE > /made && cat /src/a /src/b /src/b >> /made"),
    ),
    "token in a command": Case(
        before=("-f", "{context}/Token"),
        change=lambda context: write(context, {"Token": "FROM base\nRUN MY_TOKEN=halibut true\n"}),
        after=("-f", "{context}/Token"),
        step="RUN MY_TOKEN",
        cause="command",
        says=("in a part that is not shown",),
        hides=("swordfish", "halibut"),
    ),
    "argument in the name of the base": Case(
        before=("-f", "{context}/Tagged"),
        after=("-f", "{context}/Tagged", "--build-arg", "BASE=other"),
        step="FROM docker.io/library/other",
        cause="argument",
        says=("the build argument BASE changed", "was  base", "now  other"),
    ),
    "another base": Case(
        change=edited("FROM base AS made", "FROM other AS made"),
        step="FROM docker.io/library/other",
        cause="base",
        says=(
            "another base image is named",
            "was  docker.io/library/base:latest",
            "now  docker.io/library/other:latest",
        ),
    ),
    "new step": Case(
        change=edited("COPY src", "RUN true\nCOPY src"), step="RUN true", cause="new", says=("this step is new",)
    ),
    "after a new step": Case(
        change=edited("COPY src", "RUN true\nCOPY src"),
        step=COPY,
        cause="step",
        says=("because the step [made 3/5] RUN true before it is new",),
    ),
    "after a removed step": Case(
        change=edited("COPY src", "RUN true\nCOPY src"),
        step=COPY,
        cause="step",
        says=("because the step [made 3/5] RUN true before it is new",),
    ),
    "first cause": Case(
        change=written({"src/a": "A\n"}), step=LAST, cause="step", says=("because [made 3/4] COPY src /src ran again",)
    ),
    "user": Case(
        change=edited("USER root", "USER 0:1"), step=RUN, cause="option", says=("the user changed", "now  0:1")
    ),
    "working directory": Case(
        change=edited("RUN cat /made", "WORKDIR /made2\nRUN cat /made"),
        step=LAST,
        cause="step",
        says=("WORKDIR /made2 before it is new", "also: the working directory changed", "now  /made2"),
    ),
    "network": Case(after=("--network", "none"), step=RUN, cause="option", says=("the network changed", "now  none")),
    "host": Case(
        after=("--add-host", "db:10.0.0.1"), step=RUN, cause="option", says=("the extra hosts changed", "now  db")
    ),
    "mount": Case(
        change=edited("RUN echo", "RUN --mount=type=cache,target=/cache,sharing=locked echo"),
        step="RUN --mount",
        cause="option",
        says=("the cache mount at /cache is new", "sharing=locked"),
    ),
    "secret": Case(
        change=edited("RUN echo", "RUN --mount=type=secret,id=word echo"),
        step="RUN --mount",
        cause="option",
        says=("the secret mount at /run/secrets/word is new", "id=word"),
    ),
    "owner": Case(
        change=edited("COPY src", "COPY --chown=1:1 src"),
        step="COPY --chown",
        cause="option",
        says=("the owner changed", "now  1:1"),
    ),
    "shell": Case(
        change=edited("USER root", 'SHELL ["/bin/ash", "-c"]'),
        step=RUN,
        cause="option",
        says=("the shell changed", "was  /bin/sh -c", "now  /bin/ash -c"),
    ),
    "asked": Case(after=("--no-cache",), step=RUN, cause="asked", says=("--no-cache",)),
    "asked for a stage": Case(
        after=("--no-cache-filter", "made"), step=COPY, cause="asked", says=("--no-cache-filter made",)
    ),
}
OTHER = "FROM base\nARG VERSION\nENV TAG=v$VERSION\nRUN true\n"
INLINE = """\
FROM base
COPY <<END /conf
a=1
b=2
END
RUN --mount=type=bind,source=src,target=/src cat /src/a
"""
TAGGED = "ARG BASE=base\nFROM ${BASE}\nRUN true\n"
TOKEN = "FROM base\nRUN MY_TOKEN=swordfish true\n"


def said(why: Mapping[str, object]) -> str:
    details = why.get("details", [])
    assert isinstance(details, list)
    return "\n".join([str(why["text"]), *map(str, details)])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_the_cause_is_named(store: Store, context: Path, tmp_path: Path, case: Case) -> None:
    write(context, {"Other": OTHER, "Token": TOKEN, "Tagged": TAGGED, "Inline": INLINE})
    if "other" in case.step:
        await store.build(write(tmp_path / "other", {"Dockerfile": "FROM base\nRUN touch /other\n"}), "-t", "other")
    before, after = ([flag.format(context=context) for flag in flags] for flags in (case.before, case.after))
    await store.build(context, *before)
    case.change(context)
    built = await store.build(context, "--explain", *after)
    why = built.why(case.step)
    assert why["cause"] == case.cause, built.explanations
    assert why["fate"] == "ran" or "FROM" in case.step  # an image may be in the store, and another one all the same
    assert all(text in said(why) for text in case.says), said(why)
    whole = str(built.explanations)
    assert not any(text in whole for text in case.hides), whole


async def again(store: Store, context: Path, *flags: str) -> Built:
    await store.build(context)
    return await store.build(context, "--explain", *flags)


async def test_a_hit_says_since_when(store: Store, context: Path) -> None:
    built = await again(store, context)
    assert [(each["fate"], each["cause"]) for each in built.explanations] == [("cached", "same")] * 6
    assert all(each["since"].startswith("20") for each in built.explanations)


async def test_a_build_that_was_never_built(store: Store, context: Path) -> None:
    built = await store.build(context, "--explain")
    assert {each["cause"] for each in built.explanations} == {"first"}


async def test_another_checkout_of_the_same_is_compared_as_a_stranger(
    store: Store, context: Path, tmp_path: Path
) -> None:
    await store.build(context)
    elsewhere = write(tmp_path / "elsewhere", {**FILES, "src/a": "A\n"})
    why = (await store.build(elsewhere, "--explain")).why(COPY)
    assert why["cause"] == "first"
    assert f"from {context}: 1 file with other content: src/a" in said(why)


async def test_a_base_that_moved(store: Store, context: Path, tmp_path: Path) -> None:
    await store.build(context)
    await store.build(write(tmp_path / "new", {"Dockerfile": "FROM base\nRUN echo new > /new\n"}), "-t", "base")
    built = await store.build(context, "--explain")
    for why in (each for each in built.explanations if "FROM" in each["name"]):
        assert why["cause"] == "base"
        was, now = [line for line in why["details"] if "sha256:" in line]
        assert was[:4] == "was "
        assert now[:4] == "now "
        assert was[4:] != now[4:]
    assert "because the base image is another one" in built.why("WORKDIR")["text"]


async def test_a_pruned_result(store: Store, context: Path) -> None:
    await store.build(context)
    store.command("prune", "--all", "--force")
    built = await store.build(context, "--explain")
    assert built.why(COPY)["cause"] == "gone"
    assert "not in the store any more" in built.why(LAST)["text"]


async def test_what_failed_runs_again(store: Store, context: Path) -> None:
    edited("RUN cat /made", "RUN cat /made && false")(context)
    await store.build(context, status=1)
    built = await store.build(context, "--explain", status=1)
    assert (built.why(LAST)["fate"], built.why(LAST)["cause"]) == ("failed", "failed")
    assert built.why(COPY)["cause"] == "same"
    edited("RUN cat /made && false", "RUN cat /made")(context)
    assert (await store.build(context, "--explain")).why(LAST)["cause"] == "command"


async def test_the_build_that_is_most_alike_is_compared(store: Store, context: Path) -> None:
    """Of three with one argument or another, and other files, that with the same files."""
    await store.build(context, "--build-arg", "VERSION=1")
    write(context, {"src/a": "A\n"})
    await store.build(context, "--build-arg", "VERSION=2")
    write(context, {"src/a": "a\n"})
    built = await store.build(context, "--build-arg", "VERSION=3", "--explain")
    assert built.why(COPY)["cause"] == "same"
    assert said(built.why(RUN)).splitlines() == ["the build argument VERSION changed", "was  1", "now  3"]


async def test_what_was_there_before_is_no_cause(store: Store, context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The build that is left to compare with had another variable; but with today's the store had all but the edit."""
    monkeypatch.setattr(explained, "PER_SUBJECT", 1)
    edited("COPY src /src", "RUN echo $VERSION > /version\nCOPY src /src")(context)
    await store.build(context, "--build-arg", "VERSION=1")
    await store.build(context, "--build-arg", "VERSION=2")
    edited("RUN echo $VERSION $MODE", "RUN echo $MODE $VERSION")(context)
    built = await store.build(context, "--build-arg", "VERSION=1", "--explain")
    assert built.why("COPY src")["cause"] == "same"
    assert said(built.why("RUN echo fast")).splitlines()[0] == "the command was edited"


async def test_a_base_that_was_there_before_is_no_cause(
    store: Store, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explained, "PER_SUBJECT", 1)
    await store.build(write(tmp_path / "other", {"Dockerfile": "FROM base\nRUN touch /other\n"}), "-t", "other")
    write(context, {"Dockerfile": "ARG BASE\nFROM $BASE\nRUN true\n"})
    for base in ("base", "other"):
        await store.build(context, "--build-arg", f"BASE={base}")
    edited("RUN true", "RUN --network=none true")(context)
    built = await store.build(context, "--build-arg", "BASE=base", "--explain")
    assert built.why("RUN")["text"] == "the network changed"
    built = await store.build(write(tmp_path / "third", {"Dockerfile": "FROM base\nRUN touch /3\n"}), "-t", "third")
    built = await store.build(context, "--build-arg", "BASE=third", "--explain")
    assert "because the base image is another one" in built.why("RUN")["text"]


async def test_a_secret_is_never_compared(store: Store, context: Path, tmp_path: Path) -> None:
    edited("RUN cat", "RUN --mount=type=secret,id=word cat")(context)
    secret = tmp_path / "secret"
    secret.write_text("swordfish")
    await store.build(context, "--secret", f"id=word,src={secret}")
    secret.write_text("halibut")
    why = (await store.build(context, "--secret", f"id=word,src={secret}", "--explain")).why("RUN --mount")
    assert (why["fate"], why["cause"]) == ("cached", "same")
    assert "what is mounted at /run/secrets/word is never compared" in said(why)


async def test_another_platform(store: Store, tmp_path: Path) -> None:
    base = tmp_path / "platforms"
    await make_base(store, base)
    await store.build(base, "-t", "both", "--platform", "linux/amd64,linux/386")
    context = write(tmp_path / "context", {"Dockerfile": "FROM both\nCOPY a /a\nRUN cat /a\n", "a": "a"})
    await store.build(context, "--platform", "linux/amd64")
    built = await store.build(context, "--platform", "linux/386", "--explain")
    assert built.why("FROM")["cause"] == "platform"
    assert built.why("FROM")["details"][:2] == ["was  linux/amd64", "now  linux/386"]
    assert built.why("COPY")["cause"] == "same"  # the layers are those of the other platform
    assert built.why("RUN")["cause"] == "platform"


async def test_one_more_platform(store: Store, tmp_path: Path) -> None:
    base = tmp_path / "platforms"
    await make_base(store, base)
    await store.build(base, "-t", "both", "--platform", "linux/amd64,linux/386")
    context = write(tmp_path / "context", {"Dockerfile": "FROM both\nARG TARGETARCH\nRUN echo $TARGETARCH\n"})
    await store.build(context, "--platform", "linux/amd64")
    built = await store.build(context, "--platform", "linux/amd64,linux/386", "--explain")
    assert built.why("[linux/amd64 2/2]")["cause"] == "same"
    assert built.why("[linux/386 2/2]")["cause"] == "platform"


async def test_files_are_called_what_they_are_called_here(store: Store, tmp_path: Path) -> None:
    """A content key leaves the name of a copied file out: another step's list is not this one's."""
    text = "FROM base\nCOPY one /\nCOPY two /\n"
    context = write(tmp_path / "context", {"Dockerfile": text, "one": "1", "two": "2"})
    await store.build(context)
    write(context, {"two": "1"})
    assert (await store.build(context, "--explain")).why("COPY two")["text"] == "1 file with other content: two"


async def test_a_hit_in_a_cache_of_elsewhere(
    store: Store, store_with_base: Store, context: Path, tmp_path: Path
) -> None:
    elsewhere = store_with_base.copy(tmp_path / "elsewhere")
    with serving("own", tmp_path / "registry") as side:
        name = f"{side.host}/app:1"
        await store.build(context, "-t", name, "--push", "--cache-to", "type=inline")
        built = await elsewhere.build(context, "--cache-from", name, "--explain")
    assert (built.why(LAST)["fate"], built.why(LAST)["cause"]) == ("cached", "imported")
    assert "--cache-from" in built.why(LAST)["text"]


def test_an_archive_on_standard_input(store: Store, context: Path) -> None:
    for text in ("A", "B"):
        write(context, {"src/a": text})
        packed = subprocess.run(["tar", "-C", context, "-c", "."], capture_output=True, check=True).stdout
        built = store.command("build", "--explain", "-", stdin=packed)
    assert built.why("load remote build context")["text"] == "the archive on standard input is another one"
    assert "load remote build context has brought something else" in built.why(COPY)["text"]


async def test_what_a_stage_has_made_is_told_file_by_file(store: Store, context: Path) -> None:
    edited("RUN echo", "RUN cp -r /src /made.d && echo")(context)
    edited("--from=made /made /made", "--from=made /made.d /made.d")(context)
    edited("RUN cat /made", "RUN ls /made.d")(context)
    await store.build(context)
    write(context, {"src/a": "A\n", "src/new": "n"})
    why = (await store.build(context, "--explain")).why("COPY --from")
    assert why["text"] == "because [made 3/4] COPY src /src ran again"
    assert [line.split() for line in why["details"][1:]] == [["content", "made.d/a"], ["added", "made.d/new"]]


async def test_a_url_that_holds_something_else(store: Store, tmp_path: Path) -> None:
    bodies = [b"one", b"two"]

    def answer(_request: Request) -> Reply:
        return Reply(body=bodies[0])

    async with serve(answer) as server:
        text = f"FROM base\nADD {server.url}/file /file\nRUN cat /file\n"
        context = write(tmp_path / "context", {"Dockerfile": text})
        await store.build(context)
        bodies.pop(0)
        built = await store.build(context, "--explain")
    assert built.why("ADD")["text"] == "the URL holds something else"
    assert "has brought something else" in built.why("RUN cat /file")["text"]


async def test_a_repository_that_moved_on(store: Store, tmp_path: Path) -> None:
    repository = make(tmp_path / "repositories" / "repo.git")
    first = repository.commit({"file": b"one"})
    async with git_over_http(tmp_path / "repositories") as server:
        text = f"FROM base\nADD {server.url}/repo.git#main /repo\nRUN cat /repo/file\n"
        context = write(tmp_path / "context", {"Dockerfile": text})
        await store.build(context)
        second = repository.commit({"file": b"two"})
        built = await store.build(context, "--explain")
    assert built.why("ADD")["cause"] == "source"
    assert built.why("ADD")["details"] == [f"was  {first}", f"now  {second}"]


def image(store: Store, context: Path, file: Path, *flags: str) -> str:
    """The id of the image."""
    store.command("build", context, "--build-arg", "SOURCE_DATE_EPOCH=0", "-t", "app", "--iidfile", file, *flags)
    return file.read_text()


async def test_explaining_changes_nothing(store: Store, context: Path, tmp_path: Path) -> None:
    """What runs, and every digest, is the same with the flag and without it, in stores that are alike."""
    stores = {(): store, ("--explain",): store.copy(tmp_path / "twin")}
    for change in (unchanged, unchanged, written({"src/a": "A\n"}), edited("MODE=fast", "MODE=slow")):
        change(context)
        told = [await one.build(context, *flags) for flags, one in stores.items()]
        ran = [{step.name: step.outcomes for step in each.steps.values() if step.instruction} for each in told]
        assert ran[0] == ran[1]
        assert image(store, context, tmp_path / "id") == image(store, context, tmp_path / "id", "--explain")


def test_the_command_shows_it_to_people(store: Store, context: Path) -> None:
    store.command("build", context)
    write(context, {"src/a": "A\n", "src/new": "n"})
    shown = store.command("build", context, "--explain", "--progress", "plain").error
    header, *lines = shown[shown.index("Why steps ran") :].splitlines()
    assert header.startswith("Why steps ran, or did not have to, compared with the build of 20")
    place = next(n for n, line in enumerate(lines) if COPY in line)
    assert lines[place : place + 4] == [
        "  ran     [made 3/4] COPY src /src",
        "          2 files changed: 1 with other content, 1 added",
        "            content  src/a",
        "            added    src/new",
    ]
    assert "Why steps ran" not in store.command("build", context, "--progress", "plain").error


def test_a_daemon_explains(store: Store, context: Path, tmp_path: Path) -> None:
    with daemon(store.root, tmp_path) as running:
        commands = remote(running, store)
        commands.run("build", context)
        write(context, {"src/a": "A\n"})
        built = commands.run("build", context, "--explain")
        assert built.why(COPY)["cause"] == "files"
        assert "src/a" in said(built.why(COPY))
        (context / "src" / os.fsdecode(b"no\xffutf8")).write_text("x")
        assert "src/no\\xffutf8" in said(commands.run("build", context, "--explain").why(COPY))
        edited("RUN cat /made", "RUN cat /made && false")(context)
        failed = commands.run("build", context, "--explain", status=1)
        assert (failed.why(LAST)["fate"], failed.why(LAST)["cause"]) == ("failed", "command")
        assert commands.run("build", context, status=1).explanations == []
