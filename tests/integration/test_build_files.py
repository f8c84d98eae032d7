"""Build files in Python, as the command runs them: in the sandbox, through the gateway, into the cache."""

from __future__ import annotations

from pathlib import Path

from tests.builds import FIXTURES, Store, write

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


async def test_what_is_wrong_is_where_its_author_wrote_it(store: Store, tmp_path: Path) -> None:
    """Of the build file, of a module beside it, and of a step that fails: the file, the line, what stands there."""
    files = {
        "step.py": "import llb\n\nasync def build(ctx):\n    return (await ctx.image('base')).run('exit 7')\n",
        "name.py": "from lines import use\n\nasync def build(ctx):\n    use(ctx)\n",
        "lines.py": "def use(ctx):\n    return ctx.contxt()\n",
        "syntax.py": "async def build(ctx):\n    retrun 1\n",
        "nothing.py": "async def bild(ctx):\n    pass\n",
        "missing.py": "import wrods\n",
        "host.py": "open('/etc/shadow')\n",
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
        "missing": ("ModuleNotFoundError: No module named 'wrods'", "missing.py:1", ">>> import wrods"),
        "host": ("FileNotFoundError", "host.py:1", "await ctx.here.read(path)"),
        "latin": ("SyntaxError", "latin.py:1", "utf-8"),
    }
    for name, parts in said.items():
        built = store.command("build", context, "-f", context / f"{name}.py", status=1)
        assert all(part in built.error for part in parts), built.error


def local() -> str:
    from buildengine.platform import local

    return str(local())
