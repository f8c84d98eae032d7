"""An application in Python: pyproject.toml, pylock.toml and src in, a small image for each platform out.

    pybuild build -f build.py --platform linux/amd64,linux/arm64 -t greeter DIRECTORY

Each wheel is downloaded by the checksum in the lock file, so no step has a network. What is installed depends on the
lock file and the base image only: a change of the sources leaves it as it is. Nothing of the build is in the image.

    --build-arg PYTHON=3.12     version of Python         --build-arg BASE=IMAGE     default: python:$PYTHON-slim
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

import llb
from frontends import Context, Image, Platform, each_platform

SITE, SOURCES = "/app/site", "/app/src"
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@each_platform
async def build(ctx: Context) -> Image:
    files = ctx.files(await ctx.context(include=["pyproject.toml", "pylock.toml"]))
    project = await files.source("pyproject.toml", language="TOML")
    lock = await files.source("pylock.toml", language="TOML")
    described, packages = parse(project)["project"], parse(lock).get("packages", [])
    check(project, described, packages)

    version = ctx.arg("PYTHON", "3.12")
    ref = ctx.arg("BASE", f"python:{version}-slim")
    wheels = [choose(lock, package, version, ctx.platform) for package in packages]
    installed = await install(ctx, ref, wheels)
    sources = await ctx.context(include=["src"], exclude=["**/__pycache__"])

    image = (await ctx.image(ref)).file(llb.mkdir("/app"))
    image = image.file(llb.copy(installed, "/", SITE, contents=True), name="copy the dependencies")
    image = image.file(llb.copy(sources, "src", SOURCES, contents=True), name="copy the sources")
    image = image.with_env("PYTHONPATH", f"{SOURCES}:{SITE}").with_env("PYTHONDONTWRITEBYTECODE", "1").with_dir("/app")
    return image.with_user("65532").with_entrypoint("python3", "-c", starter(project, described))


# --- the two files --------------------------------------------------------------------------------------------------


def parse(file: llb.SourceFile) -> dict[str, Any]:
    try:
        return tomllib.loads(file.data.decode())
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"at line (\d+)", str(error))
        raise file.line(int(where[1]) if where else 1).error(f"{file.filename}: {error}") from None


def check(project: llb.SourceFile, described: dict[str, Any], packages: list[dict[str, Any]]) -> None:
    """Is everything locked that is depended on? What that needs in its turn, the locker has seen to."""
    locked = {normalized(package["name"]) for package in packages}
    for requirement in described.get("dependencies", []):
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        if normalized(name) not in locked:
            raise line_of(project, requirement).error(f"{name} is not in pylock.toml", hint="run lock.py again")


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def starter(project: llb.SourceFile, described: dict[str, Any]) -> str:
    """What runs the project's first script, in Python."""
    scripts = described.get("scripts", {})
    if not scripts:
        raise line_of(project, "[project]").error("the project has no script", hint='[project.scripts]\\nx = "x:main"')
    module, _, function = next(iter(scripts.values())).partition(":")
    return f"import sys; from {module} import {function}; sys.exit({function}())"


def line_of(file: llb.SourceFile, text: str) -> llb.Place:
    """The line with this text, the first one if there is none."""
    lines = file.data.decode().splitlines()
    return file.line(next((number for number, line in enumerate(lines, 1) if text in line), 1))


# --- wheels ---------------------------------------------------------------------------------------------------------


def choose(lock: llb.SourceFile, package: dict[str, Any], version: str, platform: Platform) -> dict[str, Any]:
    """The wheel of a package that this Python on this platform can use, the most special one first."""
    wheels: list[dict[str, Any]] = [
        wheel for wheel in package.get("wheels", []) if fits(wheel["name"], version, platform)
    ]
    if not wheels:
        problem = f"{package['name']} has no wheel for Python {version} on {platform}"
        raise line_of(lock, f'name = "{package["name"]}"').error(
            problem, hint="run lock.py --python ... --platform ..."
        )
    return min(wheels, key=lambda wheel: wheel["name"].endswith("-any.whl"))


def fits(name: str, version: str, platform: Platform) -> bool:
    """By the tags in its name (PEP 425): NAME-VERSION-PYTHON-ABI-PLATFORM.whl, each a list with dots."""
    pythons, abis, platforms = (part.split(".") for part in name.removesuffix(".whl").rsplit("-", 3)[1:])
    ours, minor = "cp" + version.replace(".", ""), int(version.partition(".")[2])
    older = {f"cp3{number}" for number in range(2, minor + 1)}
    python = "py3" in pythons or ours in pythons or ("abi3" in abis and bool(older.intersection(pythons)))
    machine = MACHINES.get(platform.architecture, platform.architecture)
    return python and any(tag == "any" or re.fullmatch(f"manylinux.*_{machine}", tag) for tag in platforms)


async def install(ctx: Context, ref: str, wheels: list[dict[str, Any]]) -> llb.State:
    """The wheels unpacked, by the base image of the machine that builds: no emulation for another one's."""
    vendored = await ctx.context(include=["wheels"])
    mounts = [llb.Bind(target="/site"), await script(ctx, "install.py")]
    for wheel in wheels:
        name, checksum = wheel["name"], f"sha256:{wheel['hashes']['sha256']}"
        source = vendored
        if "url" in wheel:
            source = llb.http(wheel["url"], checksum=checksum, filename=name, name=f"download {name}")
        selector = f"/{wheel['path']}" if "path" in wheel else f"/{name}"
        mounts.append(llb.Bind(target=f"/wheels/{name}/{name}", source=source, selector=selector, readonly=True))
    tools = await ctx.image(ref, platform=ctx.build_platform)
    ran = tools.state.run(
        ["python3", "/script/install.py"],
        mounts=mounts,
        network=llb.NetMode.NONE,
        name=f"install {len(wheels)} wheels for {ctx.platform}",
    )
    return ran.mount("/site")


async def script(ctx: Context, name: str) -> llb.Bind:
    tree = llb.scratch().file(llb.mkfile(f"/{name}", await ctx.here.read(name)), name=f"write {name}")
    return llb.Bind(target="/script", source=tree, readonly=True)
