"""What a build gives back: images by platform. Anything simpler that a build returns becomes one."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from functools import partial, wraps
from typing import TYPE_CHECKING, TypeVar

from buildengine import platform as platforms
from buildengine.errors import UserError
from buildengine.platform import Platform
from buildengine.values import dataclass
from frontends.python.image import Image
from llb.state import State

if TYPE_CHECKING:
    from frontends.python.context import Context

_T = TypeVar("_T")

Tree = State | Image
Build = Callable[["Context"], Awaitable["Tree | Mapping[Platform, Tree] | Mapping[str, Tree] | Result | None"]]
"""What an author writes as `async def build(ctx)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Images by platform, in the order in which an index lists them.

    `multi_platform`: an index of images, though there may be one only. `metadata` is for exporters and for whoever
    asked for the build, under BuildKit's names (`annotation...`, `frontend...`).
    """

    images: Mapping[Platform, Image]
    multi_platform: bool = False
    metadata: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def image(self) -> Image:
        """The only one. Raises UserError when there is none, or are several."""
        if len(self.images) != 1:
            among = ", ".join(map(str, self.images)) or "nothing"
            raise UserError(f"one image was expected, and there is {among}", hint="take one of .images, by platform")
        return next(iter(self.images.values()))

    @classmethod
    def of(cls, returned: object, wanted: tuple[Platform, ...]) -> Result:
        """What a build has returned, when `wanted` are the platforms that it was to be for. Raises UserError.

        A tree or an image that says nothing of a platform is for each of them; None is the empty image.
        """
        match returned:
            case Result():
                return returned
            case Mapping():
                return cls(images={_platform(key): _image(value) for key, value in returned.items()})
            case _:
                made = _image(returned)
        if made.platform is not None and len(wanted) > 1:
            raise UserError(
                f"build() returned an image for {made.platform}, and was to build for {', '.join(map(str, wanted))}",
                hint="return one for each platform: put @each_platform above it",
            )
        return cls(images=dict.fromkeys(wanted, made))


def _platform(key: object) -> Platform:
    if isinstance(key, Platform):
        return key
    if isinstance(key, str):
        return platforms.parse(key)
    raise UserError(f"build() returned a mapping of {type(key).__name__}", hint="its keys are platforms")


def _image(value: object) -> Image:
    match value:
        case Image():
            return value
        case State():
            return Image.of(value)
        case None:
            return Image()
    kind = type(value).__name__
    hint = "return a State, an Image, one of them by platform, or a Result"
    if inspect.isawaitable(value):
        hint = "there is an await missing"
    raise UserError(f"build() returned a {kind}", hint=hint)


def warned(ctx: Context, returned: _T) -> _T:
    """What a build has returned; a `return` that was forgotten is told of."""
    if returned is None:
        ctx.warn("build() returned nothing, so the image is empty; if that is meant: return llb.scratch()")
    return returned


def each_platform(build: Callable[[Context], Awaitable[Tree]]) -> Callable[[Context], Awaitable[Result]]:
    """`build` once for each target platform, all at once: `ctx.platform` is the one it is called for.

    >>> @each_platform
    ... async def build(ctx):
    ...     return (await ctx.image("alpine")).run(f"echo {ctx.platform} > /platform")
    """

    @wraps(build)
    async def build_each(ctx: Context) -> Result:
        async def one(platform: Platform) -> Image:
            return _image(warned(ctx, await build(ctx.on(platform))))

        if len(ctx.platforms) == 1:
            return Result(images={ctx.platform: await one(ctx.platform)})

        from frontends.dockerfile.together import gather  # and with it trio: see buildengine.client.buildfile

        images = await gather([partial(one, platform) for platform in ctx.platforms])
        return Result(images=dict(zip(ctx.platforms, images, strict=True)))

    return build_each
