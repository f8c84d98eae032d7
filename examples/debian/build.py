"""A base image made of Debian's packages: packages.yaml and packages.lock in, an image for each platform out.

    lock.py DIRECTORY
    pybuild build -f build.py --platform linux/amd64,linux/arm64 -t base DIRECTORY

Every package is downloaded by its checksum and unpacked on its own, in a step that is cached for as long as the package
stays the same; then they are laid on top of each other. Steps run where the build does, whatever the image is for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import listing

import llb
from frontends import Context, Image, Platform, UserError

Lock = dict[str, Any]  # what lock.py writes
Mounts = list[llb.Bind | llb.Tmpfs]


async def build(ctx: Context) -> dict[Platform, Image]:
    files = ctx.files(await ctx.context(include=["packages.yaml", "packages.lock"]))
    listed = await read_listing(ctx, await files.source("packages.yaml", language="YAML"))
    if not await files.exists("packages.lock"):
        raise UserError("there is no packages.lock", hint="run lock.py, where apt is")
    lock = json.loads(await files.read("packages.lock"))
    if lock["asked"] != list(listed.packages):
        raise UserError("packages.lock was made for other packages than packages.yaml lists", hint="run lock.py again")
    tools = await toolbox(ctx, lock)
    steps = {name: await script(ctx, name) for name in ("unpack.sh", "assemble.sh")}
    return {platform: image(ctx, platform, lock, listed, tools, steps) for platform in ctx.platforms}


async def read_listing(ctx: Context, file: llb.SourceFile) -> listing.Listing:
    try:
        listed = listing.parse(file.data.decode())
    except listing.Wrong as error:
        raise file.line(error.line).error(str(error), hint=error.hint or None) from None
    for name, line in listed.twice:
        ctx.warn(f"{name} is listed twice", file.line(listed.packages.get(name, line)), file.line(line))
    return listed


def image(
    ctx: Context, platform: Platform, lock: Lock, listed: listing.Listing, tools: llb.State, steps: Mapping[str, Mounts]
) -> Image:
    """One platform's: every package on top of an empty Debian, and what makes a system of them."""
    architecture = debian(platform)
    if architecture not in lock["packages"]:
        raise UserError(f"packages.lock has nothing for {platform}", hint=f"list {architecture} in packages.yaml")
    empty = skeleton(architecture, lock["released"])

    def unpacked(pin: dict[str, str]) -> llb.State:
        """What the package adds to the empty tree."""
        mounts = [
            llb.Bind(target="/deb", source=download(pin, architecture), readonly=True),
            llb.Bind(target="/target", source=empty),
            *steps["unpack.sh"],
        ]
        name = f"[{architecture}] unpack {pin['name']} {pin['version']}"
        ran = tools.run(["sh", "/script/unpack.sh"], mounts=mounts, name=name, ignore_cache=ctx.no_cache)
        return llb.diff(empty, ran.mount("/target"), name=f"[{architecture}] {pin['name']}")

    everything = llb.merge([empty, *(unpacked(pin) for pin in lock["packages"][architecture])])
    mounts = [
        llb.Bind(target="/unpacked", source=everything, readonly=True),
        llb.Bind(target="/target"),
        *steps["assemble.sh"],
    ]
    made = tools.run(
        ["sh", "/script/assemble.sh"],
        mounts=mounts,
        env={"RELEASED": str(lock["released"])},
        name=f"[{architecture}] assemble {len(lock['packages'][architecture])} packages",
        ignore_cache=ctx.no_cache,
    )
    base = Image.of(made.mount("/target").with_platform(platform)).with_cmd(*listed.command)
    return base.with_history(f"Debian: {', '.join(listed.packages)}", created=lock["released"])


async def script(ctx: Context, name: str) -> Mounts:
    """What a step needs to run a script of this directory: /script/NAME, and a place for its temporary files."""
    text = await ctx.here.read(name)
    tree = llb.scratch().file(llb.mkfile(f"/{name}", text), name=f"write {name}")
    return [llb.Bind(target="/script", source=tree, readonly=True), llb.Tmpfs(target="/tmp")]


def debian(platform: Platform) -> str:
    """What Debian calls it."""
    for architecture, name in listing.PLATFORMS.items():
        if name == str(platform):
            return architecture
    raise UserError(f"Debian has no architecture for {platform}")


def skeleton(architecture: str, released: int) -> llb.State:
    """What packages are unpacked on: the links of a merged /usr, and an empty database of dpkg."""
    links = ["bin", "lib", "sbin", *(["lib64"] if architecture == "amd64" else [])]
    time = released * 10**9
    steps = llb.mkdir("/usr", timestamp=time)
    for link in links:
        steps = steps.mkdir(f"/usr/{link}", timestamp=time).symlink(f"usr/{link}", f"/{link}", timestamp=time)
    for directory in ("info", "status.d"):
        steps = steps.mkdir(f"/var/lib/dpkg/{directory}", parents=True, timestamp=time)
    return llb.scratch().file(steps, name=f"[{architecture}] an empty Debian")


def download(pin: dict[str, str], architecture: str) -> llb.State:
    """/package.deb"""
    name = f"[{architecture}] download {pin['name']} {pin['version']}"
    return llb.http(pin["url"], checksum=f"sha256:{pin['sha256']}", filename="package.deb", name=name)


async def toolbox(ctx: Context, lock: Lock) -> llb.State:
    """busybox for the machine that builds, from its package. There is no tool yet that could unpack it, but a package
    is an `ar` archive of two tar archives: taking one out is easy, and a copy can unpack that."""
    architecture = debian(ctx.build_platform)
    if architecture not in lock["tool"]:
        raise UserError(f"packages.lock has no busybox for {architecture}, the builder's", hint="run lock.py there")
    (pin,) = lock["tool"][architecture]
    package = await ctx.files(download(pin, architecture)).read("package.deb")
    archive = llb.scratch().file(llb.mkfile("/data.tar.xz", member(package, "data.tar.xz")))
    unpacked = llb.copy(archive, "data.tar.xz", "/", unpack=True)
    busybox = llb.scratch().with_platform(ctx.build_platform).file(unpacked, name=f"unpack {pin['name']}")
    return busybox.run(["/bin/busybox", "--install", "-s", "/bin"], name="install busybox")


def member(package: bytes, name: str) -> bytes:
    """A member of an `ar` archive: each has a header of 60 bytes, its name in the first 16, its size from 48 to 58."""
    at = len(b"!<arch>\n")
    while header := package[at : at + 60]:
        size = int(header[48:58])
        if header[:16].rstrip(b" /").decode() == name:
            return package[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    raise UserError(f"the package has no {name}")
