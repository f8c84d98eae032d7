"""A repository of many programs: one build file, a target for each of them, all that they share made once.

    pybuild build -f build.py --target api --platform linux/amd64,linux/arm64 -t api .
    pybuild build -f build.py --target check .      run all tests, build nothing
    pybuild build -f build.py -o out .              every program, as a file

Each directory of `services` is a target; a new one needs no line here. A program is an archive that Python runs
(zipapp), the same for every platform: so tests and archives are made once, on the machine that builds, and only the
last step is there for each platform. A service is made anew when its own directory changes, or `libs`, and for nothing
else.

    --build-arg BASE=IMAGE     default: python:3.12-slim
"""

from __future__ import annotations

import difflib

import llb
from frontends import Context, Image, Platform, UserError

CHECK = "check"
BUNDLE = """
set -e
mkdir /tmp/program
cp -r /libs/. /service/. /tmp/program
find /tmp/program -name tests | xargs rm -r
find /tmp/program -exec touch -d @315532800 {} +  # where zip archives begin: 1980
python3 -m zipapp /tmp/program --output "/out/$NAME.pyz" --python "/usr/bin/env python3"
"""


async def build(ctx: Context) -> llb.State | dict[Platform, Image]:
    repository = await ctx.context(include=["services", "libs"], exclude=["**/__pycache__"])
    services = [entry.path for entry in await ctx.files(repository).list("services")]
    base = ctx.arg("BASE", "python:3.12-slim")
    tools = (await ctx.image(base, platform=ctx.build_platform)).state.with_network(llb.NetMode.NONE)
    if ctx.target == CHECK:
        return llb.merge(
            [await check(ctx, tools, part) for part in ["libs", *(f"services/{name}" for name in services)]]
        )
    if not ctx.target:
        return llb.merge([await bundle(ctx, tools, name) for name in services], name="all programs")
    if ctx.target not in services:
        close = difflib.get_close_matches(ctx.target, [*services, CHECK], 1)
        hint = f"did you mean {close[0]}?" if close else f"one of {', '.join([*services, CHECK])}"
        raise UserError(f"there is no service {ctx.target}", hint=hint)
    program = await bundle(ctx, tools, ctx.target)
    return {platform: await image(ctx, base, platform, program) for platform in ctx.platforms}


async def bundle(ctx: Context, tools: llb.State, name: str) -> llb.State:
    """/NAME.pyz: the service and the libraries. Their tests must have passed."""
    mounts: list[llb.Bind | llb.Tmpfs] = [
        llb.Bind(target="/libs", source=await only(ctx, "libs"), selector="/libs", readonly=True),
        llb.Bind(
            target="/service", source=await only(ctx, f"services/{name}"), selector=f"/services/{name}", readonly=True
        ),
        llb.Bind(target="/checked/libs", source=await check(ctx, tools, "libs"), readonly=True),
        llb.Bind(target="/checked/service", source=await check(ctx, tools, f"services/{name}"), readonly=True),
        llb.Tmpfs(target="/tmp"),
        llb.Bind(target="/out"),
    ]
    return tools.run(BUNDLE, mounts=mounts, env={"NAME": name}, name=f"[{name}] bundle").mount("/out")


async def check(ctx: Context, tools: llb.State, part: str) -> llb.State:
    """What unittest says of a directory. Whoever needs it waits until the tests have passed."""
    mounts = [
        llb.Bind(target="/libs", source=await only(ctx, "libs"), selector="/libs", readonly=True),
        llb.Bind(target="/part", source=await only(ctx, part), selector=f"/{part}", readonly=True),
        llb.Bind(target="/out"),
    ]
    command = (
        f"python3 -B -m unittest discover -s /part -t /part 2>&1 | tee /out/{part.replace('/', '-')}.txt | tail -n 1"
    )
    strict = f"set -e; {command}; tail -n 1 /out/*.txt | grep -q '^OK\\|^NO TESTS'"
    return tools.run(strict, mounts=mounts, env={"PYTHONPATH": "/libs"}, name=f"[{part}] test").mount("/out")


async def image(ctx: Context, base: str, platform: Platform, program: llb.State) -> Image:
    made = (await ctx.image(base, platform=platform)).file(
        llb.copy(program, f"/{ctx.target}.pyz", "/app.pyz"), name=f"[{ctx.target} {platform}] copy the program"
    )
    return made.with_user("65532").with_entrypoint("python3", "/app.pyz")


async def only(ctx: Context, part: str) -> llb.State:
    """One part of the repository: what else changes is no concern of who uses it."""
    return await ctx.context(include=[part], exclude=["**/__pycache__"])
