"""What `pybuild frontend new NAME` writes: a package with a small build language, its tests, and how to install it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from buildengine.errors import UserError

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_TAKEN = ("dockerfile", "gateway", "python")

_PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "@NAME@-frontend"
version = "0.1.0"
description = "The build language @NAME@, for pybuild"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["pybuild"]

[project.optional-dependencies]
dev = ["pytest>=8"]

# What makes `pybuild build --frontend @NAME@` and `# syntax=python://@NAME@` find it.
[project.entry-points."pybuild.frontends"]
@NAME@ = "@PACKAGE@:build"

[tool.pytest.ini_options]
testpaths = ["tests"]
addopts = "-p frontends.testing.fixtures"  # the fixture `snapshot`
"""

_README = """\
# @NAME@

A build language: one word and what belongs to it on each line.

    # syntax=python://@NAME@
    base alpine:3.20
    copy . /app
    run make -C /app
    env PORT 8080
    start /app/serve

Try it on `example`, once it is installed where pybuild is:

    pip install -e '.[dev]'
    pytest
    pybuild build -f example/@NAME@.build -t @NAME@-example example

`@PACKAGE@/__init__.py` is the language, `tests` are its tests: they run it without an engine, in milliseconds. When the
steps of a build change, `pytest --update-snapshots` writes what they are now; read the difference before you commit it.
"""

_LANGUAGE = '''\
"""The build language @NAME@: one word and what belongs to it on each line, see README.md."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Awaitable, Callable

import llb
from frontends import Context, Image, each_platform


@each_platform
async def build(ctx: Context) -> Image:
    """Read the file, and apply each of its lines to the image that the lines before it have made."""
    file = await ctx.here.source(ctx.options.get("filename", "@NAME@.build"), language="@NAME@")
    image: Image | None = None
    for number, line in enumerate(file.data.decode().splitlines(), 1):
        word, _, rest = line.strip().partition(" ")
        if word and not word.startswith("#"):
            image = await instruction(word, file.line(number))(ctx, image, rest.strip(), file.line(number))
    if image is None:
        raise file.line(1).error("the file says nothing of a base image", hint="base alpine:3.20")
    return image


async def base(ctx: Context, image: Image | None, ref: str, place: llb.Place) -> Image:
    """base IMAGE: what the image begins as."""
    if image is not None:
        raise place.error("there is a base already")
    return await ctx.image(ref)


async def copy(ctx: Context, image: Image | None, rest: str, place: llb.Place) -> Image:
    """copy SOURCE TARGET: files of the build context."""
    source, target = arguments(rest, 2, "copy SOURCE TARGET", place)
    context = await ctx.context(include=[source])
    action = llb.copy(context, source, target, contents=True, parents=True)
    return based(image, place).file(action, name=f"copy {rest}", place=place)


async def run(ctx: Context, image: Image | None, command: str, place: llb.Place) -> Image:
    """run COMMAND: a line for the shell."""
    return based(image, place).run(command, name=f"run {command}", place=place, ignore_cache=ctx.no_cache)


async def env(ctx: Context, image: Image | None, rest: str, place: llb.Place) -> Image:
    """env NAME VALUE: for the commands that follow, and for containers."""
    name, value = arguments(rest, 2, "env NAME VALUE", place)
    if name.lower() == name:
        ctx.warn(f"{name} is written in small letters", place, detail="names of variables mostly are in capitals")
    return based(image, place).with_env(name, value)


async def start(ctx: Context, image: Image | None, command: str, place: llb.Place) -> Image:
    """start COMMAND: what containers run."""
    return based(image, place).with_entrypoint(*shlex.split(command))


Instruction = Callable[[Context, Image | None, str, llb.Place], Awaitable[Image]]
INSTRUCTIONS: dict[str, Instruction] = {"base": base, "copy": copy, "run": run, "env": env, "start": start}


def instruction(word: str, place: llb.Place) -> Instruction:
    if word not in INSTRUCTIONS:
        close = difflib.get_close_matches(word, INSTRUCTIONS, 1)
        hint = f"did you mean {close[0]}?" if close else f"one of {', '.join(INSTRUCTIONS)}"
        raise place.error(f"unknown word {word}", hint=hint)
    return INSTRUCTIONS[word]


def arguments(rest: str, count: int, usage: str, place: llb.Place) -> list[str]:
    found = rest.split(maxsplit=count - 1)
    if len(found) != count:
        raise place.error("there is something missing", hint=usage)
    return found


def based(image: Image | None, place: llb.Place) -> Image:
    if image is None:
        raise place.error("there is no base image yet", hint="the first line is: base IMAGE")
    return image
'''

_TESTS = '''\
"""The language on a fake engine: what it builds, and what it says of mistakes."""

import pytest

from @PACKAGE@ import build
from frontends import UserError
from frontends.testing import image_config, run

IMAGES = {"alpine:3.20": image_config(Cmd=["/bin/sh"])}
FILE = """\\
base alpine:3.20
copy src /app
run make -C /app
env PORT 8080
start /app/serve --quietly
"""


def built(text, **given):
    files = {"@NAME@.build": text, "src/Makefile": "all:\\n"}
    return run(build, files=files, images=IMAGES, options={"filename": "@NAME@.build"}, **given)


def test_an_image(snapshot):
    image = built(FILE)
    assert image.files == {"app/Makefile": b"all:\\n"}
    assert image.step("run make").argv == ("/bin/sh", "-c", "make -C /app")
    assert image.step("run make").lines == (3,)
    assert image.env["PORT"] == "8080"
    assert image.config["Entrypoint"] == ["/app/serve", "--quietly"]
    snapshot(image)


def test_every_platform_has_one():
    both = built("base alpine:3.20\\nrun uname -m\\n", platforms=["linux/amd64", "linux/arm64"])
    for platform in ("linux/amd64", "linux/arm64"):
        assert str(both.on(platform).step("run uname").platform) == platform


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("# nothing\\n", 1, "nothing of a base image"),
        ("run make\\n", 1, "no base image yet"),
        ("base alpine:3.20\\nruns make\\n", 2, "unknown word runs"),
        ("base alpine:3.20\\n\\ncopy src\\n", 3, "something missing"),
    ],
)
def test_a_mistake_is_shown_where_it_is(text, line, message):
    with pytest.raises(UserError, match=message) as refused:
        built(text)
    (place,) = refused.value.locations
    assert [each.start_line for each in place.ranges] == [line]


def test_small_letters_are_warned_of():
    (warning,) = built("base alpine:3.20\\nenv port 80\\n").warnings
    assert warning.message == "port is written in small letters"
'''

_EXAMPLE = """\
# syntax=python://@NAME@
base alpine:3.20
copy . /app
run cat /app/greeting > /greeting
start cat /greeting
"""


def project(name: str) -> Mapping[str, str]:
    """The files of a new project, by their paths in it. Raises UserError for what cannot be the name of a frontend."""
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot be the name of a frontend", hint="small letters and digits, e.g. my-language")
    if name in _TAKEN:
        raise UserError(f"{name} is the name of a frontend that there is", hint=f"e.g. my-{name}")
    package = f"{name.replace('-', '_')}_frontend"
    files = {
        "pyproject.toml": _PROJECT,
        "README.md": _README,
        f"{package}/__init__.py": _LANGUAGE,
        "tests/test_build.py": _TESTS,
        f"example/{name}.build": _EXAMPLE,
        "example/greeting": "hello\n",
        ".gitignore": "__pycache__/\n*.egg-info/\n.venv/\n",
    }
    return {path: text.replace("@NAME@", name).replace("@PACKAGE@", package) for path, text in files.items()}
