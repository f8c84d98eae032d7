"""Our frontends as images (`pybuild-frontend`) before our engine: the Dockerfile frontend, and an author's."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from buildengine.client.frontendimage import request_of
from buildengine.platform import Platform
from tests.builds import FIXTURES, Store, write
from tests.fakes.interpreter_image import frontend_image

pytest_plugins = [FIXTURES]

IMAGE = "ours/frontend:1"
PROGRAM = Path(sys.executable).with_name("pybuild-frontend")
DOCKERFILE = """\
# syntax={syntax}
FROM base AS made
ARG WHO=world
RUN echo "hello $WHO" > /hello
FROM scratch
COPY --from=made /hello /
COPY *.txt /texts/
ENV WHO=$WHO
"""
AUTHORS = """\
import llb
from frontends import Context, Image

async def build(ctx: Context) -> Image:
    '''A list of greetings, one a line, becomes an image that says them.'''
    lines = (await ctx.files(await ctx.context()).read_text("greetings")).splitlines()
    print("read", len(lines), "lines for", ctx.arg("WHO"))
    image = await ctx.dockerfile("Dockerfile", args={"WHO": ctx.arg("WHO")})
    for number, line in enumerate(lines):
        image = image.file(llb.mkfile(f"/said-{number * 2 // len(line)}", line.encode()))
    return image.run("test -s /said-0")
"""


@pytest.fixture(scope="module")
def with_frontend(store_with_base: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    work = tmp_path_factory.mktemp("frontend")
    store = store_with_base.copy(work / "root")
    frontend_image(store, work / "image", IMAGE)
    return store


def test_the_dockerfile_frontend_makes_the_same_image_from_inside_an_image(
    with_frontend: Store, tmp_path: Path
) -> None:
    """All steps of the build before are found, so what it asked for was the same to the last byte."""
    context = write(tmp_path / "context", {"a.txt": "a", "b.txt": "b", "c": "c", ".dockerignore": "b.txt\n"})
    digests = []
    for syntax in ("docker/dockerfile:1", IMAGE):
        write(context, {"Dockerfile": DOCKERFILE.format(syntax=syntax)})
        flags = ("--build-arg", "WHO=me", "--iidfile", tmp_path / "iid", "-o", f"type=oci,dest={tmp_path}/image.tar")
        built = with_frontend.command("build", context, *flags)
        digests.append((tmp_path / "iid").read_text())
    assert built.ran == []
    assert len(built.cached) == 3
    assert digests[0] == digests[1]


def test_a_mistake_in_the_file_is_shown_there(with_frontend: Store, tmp_path: Path) -> None:
    context = write(tmp_path, {"Dockerfile": f"# syntax={IMAGE}\nFROM base\nRUM x\n"})
    said = with_frontend.command("build", context, status=1).error
    assert "error: dockerfile parse error on line 3: unknown instruction: RUM (did you mean RUN?)" in said
    assert "3 | >>> RUM x" in said
    assert "hint: instructions are ADD, ARG" in said


def test_a_frontend_of_an_author(with_frontend: Store, tmp_path: Path) -> None:
    """It reads the context, runs the Dockerfile frontend, prints; and its own mistakes are shown in its own file."""
    image = f'FROM {IMAGE}\nCOPY greet.py /opt/pybuild/\nENTRYPOINT ["pybuild-frontend", "greet:build"]\n'
    made = write(tmp_path / "image", {"Dockerfile": image, "greet.py": AUTHORS})
    with_frontend.command("build", made, "-t", "greetings:1")
    files = {"Dockerfile": "FROM base\nARG WHO\nRUN echo $WHO > /who\n", "greetings": "good day\nbye\n"}
    context = write(tmp_path / "context", {**files, "said": "# syntax=greetings:1\n"})
    flags = ("-f", context / "said", "--build-arg", "WHO=me")
    built = with_frontend.command("build", context, *flags, "-o", tmp_path / "out")
    assert built.step("frontend greetings:1").output == "read 2 lines for me\n"
    assert (tmp_path / "out/said-0").read_bytes() == b"bye"
    assert (tmp_path / "out/who").read_text() == "me\n"
    write(context, {"greetings": "good day\n\nbye\n"})
    said = with_frontend.command("build", context, *flags, status=1).error
    assert "ZeroDivisionError: integer division or modulo by zero" in said
    assert "greet.py:10" in said
    assert ">>>         image = image.file(llb.mkfile(f" in said
    write(context, {"greetings": ""})
    said = with_frontend.command("build", context, *flags, status=1).error
    assert '"/bin/sh -c test -s /said-0" did not complete successfully: exit code: 1' in said
    assert '>>>     return image.run("test -s /said-0")' in said


def test_an_authors_frontend_that_is_not_there(with_frontend: Store, tmp_path: Path) -> None:
    image = f'FROM {IMAGE}\nENTRYPOINT ["pybuild-frontend", "nowhere:build"]\n'
    with_frontend.command("build", write(tmp_path / "image", {"Dockerfile": image}), "-t", "lost:1")
    context = write(tmp_path / "context", {"Dockerfile": "# syntax=lost:1\n"})
    said = with_frontend.command("build", context, status=1).error
    assert "there is no frontend nowhere:build: No module named 'nowhere'" in said


# --- the program ---------------------------------------------------------------------------------------------------


def test_a_request_from_the_environment() -> None:
    asked = request_of(
        {
            "BUILDKIT_FRONTEND_OPT_0": "platform=linux/arm64,linux/arm/v7",
            "BUILDKIT_FRONTEND_OPT_12": "build-arg:A=b=c",
            "BUILDKIT_FRONTEND_OPTION": "x=y",
            "BUILDKIT_SESSION_ID": "s1",
            "BUILDKIT_WORKERS": '[{"id": "w", "platforms": [{"os": "linux", "architecture": "arm64"}]}]',
        }
    )
    assert asked.options == {"platform": "linux/arm64,linux/arm/v7", "build-arg:A": "b=c"}
    assert list(map(str, asked.platforms)) == ["linux/arm64", "linux/arm/v7"]
    assert (asked.build_platform, asked.session) == (Platform(os="linux", architecture="arm64"), "s1")


@pytest.mark.parametrize("workers", ["", "{", "null", "[]", '[{"platforms": []}]'])
def test_an_engine_that_says_nothing_of_its_workers(workers: str) -> None:
    asked = request_of({"BUILDKIT_WORKERS": workers})
    assert asked.platforms == (asked.build_platform,)


def test_whoever_starts_it_by_hand_is_told(tmp_path: Path) -> None:
    primary, terminal = pty.openpty()
    try:
        for arguments, stdin in ((["--help"], subprocess.DEVNULL), (["a", "b"], subprocess.DEVNULL), ([], terminal)):
            done = subprocess.run([PROGRAM, *arguments], stdin=stdin, capture_output=True, check=False)
            assert (done.returncode, done.stdout) == (2, b"")
            assert done.stderr.startswith(b"usage: pybuild-frontend [FRONTEND]")
    finally:
        os.close(primary)
        os.close(terminal)
