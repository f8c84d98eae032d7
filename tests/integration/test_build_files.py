"""Build files in Python, as the command runs them: in the sandbox, through the gateway, into the cache."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import trio

from tests.builds import FIXTURES, Store, write
from tests.fakes.daemon import daemon
from tests.fakes.git_server import git_over_http, make

pytest_plugins = [FIXTURES]

FILE = """
from words import GREETING
from frontends import Context, Image
import llb
from parts.data import NUMBER

async def build(ctx: Context) -> Image:
    source = await ctx.context(include=["greeting"])
    print("building for", ctx.platform, await ctx.here.read_text("note"))
    base = await ctx.dockerfile("base.Dockerfile", args={"WHO": ctx.arg("WHO", "you")})
    image = base.file(llb.copy(source, "greeting", "/greeting")).run(f"cat /greeting /who; echo {GREETING} {NUMBER}")
    found = await ctx.solve(image.run("cat /who > /who2"))
    assert await found.read_text("/who2") == "me\\n", await found.read_text("/who2")
    assert [each.path for each in await found.list("/", include="who*")] == ["who", "who2"]
    return image.with_env("WHO", "me").with_entrypoint("cat", "/who")
"""
FILES = {
    "build.py": FILE,
    "words.py": "GREETING = 'hello'\n",
    "parts/__init__.py": "",
    "parts/data.py": "from words import GREETING\nNUMBER = len(GREETING)\n",
    "base.Dockerfile": "FROM base\nARG WHO\nRUN echo $WHO > /who\n",
    "greeting": "good morning\n",
    "note": "now",
}


async def test_a_build_file(store: Store, tmp_path: Path) -> None:
    """It imports what is beside it, calls the Dockerfile frontend, reads from what it has built; and all is cached."""
    context = write(tmp_path / "context", FILES)
    flags = ("-f", context / "build.py", "--build-arg", "WHO=me", "--label", "a=b")
    first = await store.build(context, *flags)
    assert first.step("run build.py").output == f"building for {local()} now\n"
    assert first.step("cat /greeting /who").output == "good morning\nme\nhello 5\n"
    second = await store.build(context, *flags)
    assert second.step("cat /greeting /who").outcome == "cached"
    assert second.step("echo me").outcome == "cached"


WARNED = """import trio

async def build(ctx):
    ctx.warn("hm")
    await ctx.image("base")
    ctx.warn("hm hm")
    1 / 0
"""


async def test_a_build_file_in_a_directory(store: Store, tmp_path: Path) -> None:
    """It imports what is beside it, and reads from the directory that the client has given."""
    text = "from words import WORD\n\nasync def build(ctx):\n    print(WORD, await ctx.here.read_text('a'))\n"
    context = write(tmp_path / "context", {"ci/build.py": text, "ci/words.py": "WORD = 'one'\n", "a": "two"})
    built = await store.build(context, "--frontend", "python.v0", "--opt", "filename=ci/build.py")
    assert built.step("run ci/build.py").output == "one two\n"


async def test_a_build_file_in_a_repository(store: Store, tmp_path: Path) -> None:
    """Then its directory is the repository's, and so is the build context."""
    names = ("build.py", "words.py", "parts/__init__.py", "parts/data.py", "base.Dockerfile", "greeting", "note")
    make(tmp_path / "served" / "repo.git").commit({name: FILES[name].encode() for name in names})
    async with git_over_http(tmp_path / "served") as server:
        asked = ("build", f"{server.url}/repo.git", "-f", "build.py", "--build-arg", "WHO=me")
        built = await trio.to_thread.run_sync(partial(store.command, *asked))
    assert built.step("cat /greeting /who").output == "good morning\nme\nhello 5\n"


def test_a_build_file_behind_a_daemon(store: Store, tmp_path: Path) -> None:
    """Its directory is the client's: what it imports and reads comes through the session, and its log goes back."""
    context = write(tmp_path / "context", FILES)
    flags = ("-f", context / "build.py", "--build-arg", "WHO=me")
    with daemon(store.root, tmp_path / "daemon") as running:
        address = ("--addr", running.address.replace("unix:", "unix://"))
        first = store.command(*address, "build", *flags, "--progress", "rawjson", "-o", "type=cacheonly", context)
        assert first.step("run build.py").output == f"building for {local()} now\n"
        assert first.step("cat /greeting /who").output == "good morning\nme\nhello 5\n"


async def test_what_is_wrong_is_where_its_author_wrote_it(store: Store, tmp_path: Path) -> None:
    """Of the build file, of a module beside it, and of a step that fails: the file, the line, what stands there."""
    files = {
        "step.py": "import llb\n\nasync def build(ctx):\n    return (await ctx.image('base')).run('exit 7')\n",
        "name.py": "from lines import use\n\nasync def build(ctx):\n    use(ctx)\n",
        "lines.py": "def use(ctx):\n    return ctx.contxt()\n",
        "syntax.py": "async def build(ctx):\n    retrun 1\n",
        "nothing.py": "async def bild(ctx):\n    pass\n",
        "missing.py": "import wrods\n",
        "called.py": "async def build():\n    pass\n",
        "await.py": "async def build(ctx):\n    return ctx.image('base').run('true')\n",
        "net.py": "import socket\n\nsocket.create_connection(('127.0.0.1', 9))\n",
        "empty.py": "async def build(ctx):\n    await ctx.image('base')\n",
        "host.py": "open('/etc/shadow')\n",
        "foreign.py": "import asyncio\n\nasync def build(ctx):\n    await asyncio.sleep(0)\n",
        "warned.py": WARNED,
        "latin.py": b"X = '\xe9'\n",
    }
    context = write(tmp_path / "context", files)
    said = {
        "step": ("exit code: 7", "step.py:4", ">>>     return (await ctx.image('base')).run('exit 7')"),
        "name": (
            "AttributeError: 'Context' object has no attribute 'contxt'",
            "lines.py:2",
            ">>>     return ctx.contxt()",
        ),
        "syntax": ("SyntaxError: invalid syntax", "syntax.py:2", ">>>     retrun 1"),
        "nothing": ("nothing.py defines no build()", "async def build(ctx); did you mean it by bild()?", ""),
        "missing": (
            "ModuleNotFoundError: No module named 'wrods'",
            "missing.py:1",
            "hint: what stands beside the build",
        ),
        "called": ("build() takes 0 positional arguments", "hint: write: async def build(ctx)", ""),
        "await": ("'coroutine' object has no attribute 'run'", "await.py:2", "hint: there is an await missing"),
        "net": ("ConnectionRefusedError", "net.py:3", "hint: a build file has no network"),
        "host": ("FileNotFoundError", "host.py:1", "await ctx.here.read(path)"),
        "foreign": ("awaits what nobody runs", "foreign.py:4", "import trio"),
        "warned": ("ZeroDivisionError", "warned.py:7", ""),
        "latin": ("SyntaxError", "latin.py:1", "utf-8"),
    }
    for name, parts in said.items():
        built = store.command("build", context, "-f", context / f"{name}.py", status=1)
        assert all(part in built.error for part in parts), built.error
        assert built.warnings == (["hm", "hm hm"] if name == "warned" else [])
    (forgotten,) = store.command("build", context, "-f", context / "empty.py").warnings
    assert forgotten.startswith("build() returned nothing, so the image is empty")


LANGUAGE = """
from words_frontend.lines import lines

async def build(ctx):
    file = await ctx.here.source(ctx.options["filename"], language="words")
    image = await ctx.image("base")
    for number, line in lines(file.data.decode()):
        if line == "crash":
            image.crash()
        image = image.run(line, place=file.line(number), name=line)
    return image
"""
LINES = """
def lines(text):
    return [(number, line) for number, line in enumerate(text.splitlines(), 1) if line and not line.startswith("#")]
"""


def installed(directory: Path) -> Path:
    """A frontend as pip installs one from where it is developed: a package, and metadata that names it."""
    return write(directory, {
        "words_frontend/__init__.py": LANGUAGE,
        "words_frontend/lines.py": LINES,
        "words_frontend-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: words-frontend\nVersion: 1.0\n",
        "words_frontend-1.0.dist-info/entry_points.txt": "[pybuild.frontends]\nwords = words_frontend:build\n",
    })  # fmt: skip


async def test_a_frontend_that_is_installed(store: Store, tmp_path: Path) -> None:
    """By its name, and by the first line of the file; what is wrong is in the user's file, or in the frontend's own."""
    store.environment["PYTHONPATH"] = str(installed(tmp_path / "site"))
    files = {
        "good": "# syntax=python://words\necho one\n",
        "bad": "# syntax=python://words\n\nexit 3\n",
        "crash": "crash\n",
        "unknown": "# syntax=python://swords\n",
    }
    context = write(tmp_path / "context", files)
    good = store.command("build", context, "-f", context / "good")
    assert good.step("echo one").output == "one\n"
    bad = store.command("build", context, "-f", context / "bad", status=1)
    assert "exit code: 3" in bad.error
    assert f"{context / 'bad'}:3" in bad.error
    crash = store.command("build", context, "-f", context / "crash", "--frontend", "words", status=1)
    assert "AttributeError: 'Image' object has no attribute 'crash'" in crash.error
    assert "/frontend/words_frontend/__init__.py:9" in crash.error
    unknown = store.command("build", context, "-f", context / "unknown", status=1)
    assert "invalid frontend: swords" in unknown.error
    assert "did you mean words?" in unknown.error
    none = store.command("build", context, "--frontend", "words", "--opt", "filename=good")
    assert none.step("echo one").outcome == "cached"


def local() -> str:
    from buildengine.platform import local

    return str(local())
