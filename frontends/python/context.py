"""What a build may ask: `async def build(ctx: Context)`. Everything that takes time is awaited."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from buildengine import reference
from buildengine.errors import UserError, meant
from buildengine.events import WarningEvent
from buildengine.platform import Platform
from frontends.gateway import FrontendRequest, Gateway, Reference
from frontends.python.files import Files
from frontends.python.image import Image
from llb.sourcemap import Place
from llb.sources import image
from llb.state import State
from llb.vertices import Output

if TYPE_CHECKING:  # most builds use some of it
    from frontends.python.result import Result

SECRETS = "secret-ids"  # the option in which a client says what secrets it has


class Context:
    """One build, as its author sees it.

    Options: `args`, `arg`, `labels`, `target`, `no_cache`, `ignores_cache`, `epoch`, `secrets`, `options`. Platforms:
    `platforms`, `platform`, `build_platform`, `on`. What it is made from: `context`, `named_context`, `inputs`,
    `image`, `under_flags`, `image_config`, `here`. Looking into trees: `files`, `solve`. Other frontends: `frontend`,
    `dockerfile`. And `warn`.
    """

    def __init__(self, gateway: Gateway, request: FrontendRequest, *, platform: Platform | None = None) -> None:
        """`platform`: the one that this context is narrowed to."""
        self.gateway = gateway
        self.request = request
        self._platform = platform
        self.definition: State | None = None  # where the build file is, once somebody has looked for it
        self._solved: dict[Output | None, Reference] = {}

    # --- options ---------------------------------------------------------------------------------------------

    @property
    def options(self) -> Mapping[str, str]:
        """All of them, under BuildKit's names: `filename`, `target`, `build-arg:X`, `add-hosts`, ... With
        `--opt NAME=VALUE` a user sets one that only this frontend knows."""
        return self.request.options

    @property
    def args(self) -> Mapping[str, str]:
        """What `--build-arg NAME=VALUE` has set, see also `arg`."""
        return self._named("build-arg:")

    def arg(self, name: str, default: str | None = None, *, choices: Sequence[str] = ()) -> str:
        """The build argument `name`. Raises UserError when it has no default and is not set, or none of `choices`.

        >>> ctx.arg("VARIANT", "slim", choices=["slim", "full"])    # doctest: +SKIP
        """
        value = self.args.get(name, default)
        if value is None:
            close = meant(name, self.args)
            also = f"; did you mean it by {close}?" if close else ""
            raise UserError(f"the build argument {name} is missing", hint=f"--build-arg {name}=VALUE{also}")
        if choices and value not in choices:
            raise UserError(
                f"build argument {name}={value}: there is no such choice", hint=f"one of {', '.join(choices)}"
            )
        return value

    @property
    def labels(self) -> Mapping[str, str]:
        """What `--label NAME=VALUE` has set. Every image of the result gets them without the build's doing."""
        return self._named("label:")

    @property
    def target(self) -> str:
        """What `--target` names; "" for the usual one."""
        return self.options.get("target", "")

    @property
    def no_cache(self) -> bool:
        """Whether every step is to run: pass it on as `ignore_cache=ctx.no_cache`."""
        return self.options.get("no-cache") == ""

    def ignores_cache(self, name: str) -> bool:
        """Whether the steps of the part that is called so are to run: `--no-cache`, or `--no-cache-filter NAME`."""
        given = self.options.get("no-cache")
        return given is not None and (not given or name.lower() in given.lower().split(","))

    @property
    def epoch(self) -> int | None:
        """SOURCE_DATE_EPOCH, seconds, for who writes times into files. Raises UserError for what is no number."""
        from buildengine.units import parse_epoch

        given = self.args.get("SOURCE_DATE_EPOCH")
        return parse_epoch("SOURCE_DATE_EPOCH", given) if given else None

    @property
    def secrets(self) -> frozenset[str]:
        """The ids of the client's secrets, as far as it has named them: never their values. A step mounts one with
        `llb.Secret(id=...)`."""
        return frozenset(name for name in self.options.get(SECRETS, "").split(",") if name)

    def _named(self, prefix: str) -> Mapping[str, str]:
        options = self.options.items()
        return MappingProxyType({k.removeprefix(prefix): v for k, v in options if k.startswith(prefix)})

    # --- platforms -------------------------------------------------------------------------------------------

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """What the result is for. One unless the user has said otherwise."""
        return (self._platform,) if self._platform else self.request.platforms

    @property
    def platform(self) -> Platform:
        """The only target platform. Raises UserError when there are several, see `each_platform`."""
        if len(self.platforms) != 1:
            several = ", ".join(map(str, self.platforms))
            raise UserError(
                f"this build is for several platforms: {several}",
                hint="put @each_platform above build(), or ask for one platform: ctx.on(platform)",
            )
        return self.platforms[0]

    @property
    def build_platform(self) -> Platform:
        """Where steps run natively: what cross compilers run on."""
        return self.request.build_platform

    def on(self, platform: Platform) -> Context:
        """The same build, for one platform only."""
        narrowed = Context(self.gateway, self.request, platform=platform)
        narrowed._solved, narrowed.definition = self._solved, self.definition
        return narrowed

    # --- what it is made from --------------------------------------------------------------------------------

    async def context(
        self,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        follow_paths: Sequence[str] = (),
        use_ignore_file: bool = True,
    ) -> State:
        """The build context: the client's directory, a git repository or a download.

        `include` and `exclude` are patterns as in .dockerignore, which itself counts unless `use_ignore_file` is off.
        Of a directory only what is left of it leaves the client; say what you need. `follow_paths` are paths wanted
        together with what their symbolic links lead to. Raises UserError, SourceError.
        """
        from frontends.python.contexts import main_context

        return await main_context(
            self, include=include, exclude=exclude, follow_paths=follow_paths, use_ignore_file=use_ignore_file
        )

    async def named_context(self, name: str, *, platform: Platform | None = None) -> Image | None:
        """What `--build-context NAME=...` says; None where it says nothing. What is no image has an empty config."""
        from frontends.python.contexts import named_context

        return await named_context(self, name, platform)

    @property
    def inputs(self) -> Mapping[str, State]:
        """Results of other builds that the client has handed in, by name."""
        given = self.request.inputs.items()
        return MappingProxyType({name: State.from_definition(definition) for name, definition in given})

    async def image(self, ref: str, *, platform: Platform | None = None) -> Image:
        """An image, pinned to what `ref` means now, for `platform` or else the build's only one.

        A named context of this name stands in its place (`--build-context alpine=docker-image://...`). Raises
        SourceError when there is no such image.
        """
        wanted = platform or self.platform
        if any(name.startswith("context:") for name in self.options):
            found = await self.named_context(ref, platform=wanted)
            if found is not None:
                return found
        full = reference.normalize(ref)
        resolved = await self.gateway.resolve_image(
            full,
            platform=wanted,
            mode=self.options.get("image-resolve-mode") or "default",
            name=f"[internal] load metadata for {full}",
        )
        pinned = f"{resolved.reference.partition('@')[0]}@{resolved.digest}"
        return Image.from_config(self.under_flags(image(pinned, platform=wanted)), resolved.config)

    def under_flags(self, state: State) -> State:
        """For commands to run as the user's flags say: `--network`, `--add-host`, `--ulimit`, `--cgroup-parent`.

        What `image` and `dockerfile` give is so already; what begins with `llb.image` or `llb.scratch` is not.
        """
        from frontends.python.flags import under_flags

        return under_flags(state, self.options)

    async def image_config(self, ref: str, *, platform: Platform | None = None) -> bytes:
        """The image config of an image, the JSON as the registry has it."""
        return (await self.image(ref, platform=platform)).base_config

    # --- looking into trees ----------------------------------------------------------------------------------

    def files(self, state: State | Image) -> Files:
        """The files of a tree, which is built when the first of them is asked for.

        >>> lock = await ctx.files(await ctx.context(include=["uv.lock"])).read("uv.lock")    # doctest: +SKIP
        """
        return Files(partial(self._reference, state))

    async def solve(self, state: State | Image) -> Files:
        """Build a tree now; its files. Raises SolveError when a step of it fails."""
        await (await self._reference(state)).evaluate()
        return self.files(state)

    @property
    def here(self) -> Files:
        """The files beside the build file, whatever the build context is. Only what is asked for leaves the client."""

        async def solve(path: str) -> Reference:
            from frontends.python.contexts import beside

            return await self._reference(await beside(self, path))

        return Files(solve)

    async def _reference(self, state: State | Image, _path: str = "") -> Reference:
        tree = state.state if isinstance(state, Image) else state
        found = self._solved.get(tree.output)
        if found is None:
            found = self._solved[tree.output] = await self.gateway.solve(tree.marshal(self._default_platform))
        return found

    @property
    def _default_platform(self) -> Platform:
        return self._platform or self.request.platforms[0]

    # --- other frontends -------------------------------------------------------------------------------------

    async def frontend(
        self, name: str, *, options: Mapping[str, str] | None = None, inputs: Mapping[str, State] | None = None
    ) -> Result:
        """What another frontend makes of these options and inputs, for this build's platforms.

        `name` is `dockerfile.v0`, `gateway.v0` with the option `source` for a frontend image, or one that is installed.
        """
        from frontends.python.nested import run_frontend

        return await run_frontend(self, name, options or {}, inputs or {})

    async def dockerfile(
        self,
        filename: str = "",
        *,
        text: str = "",
        target: str = "",
        args: Mapping[str, str] | None = None,
        context: State | None = None,
    ) -> Image:
        """What a Dockerfile builds, to go on from: `filename`, beside the build file, or else `text`.

        The flags of this build that are not about its own file (named contexts, --no-cache, --add-host, ...) count
        there too. `context` is its build context, this build's unless given.
        """
        from frontends.python.nested import run_dockerfile

        return await run_dockerfile(self, filename, text=text, target=target, args=args or {}, context=context)

    # --- what a user should know -----------------------------------------------------------------------------

    def warn(self, message: str, *places: Place, detail: str | Iterable[str] = (), url: str = "") -> None:
        """Say something although the build goes on. `places` are where in the user's file, `file.line(3)`."""
        ranges = tuple(each for place in places for each in place.ranges)
        location = places[0].file.at(*ranges).location if places else None
        details = (detail,) if isinstance(detail, str) else tuple(detail)
        self.gateway.warn(
            WarningEvent(vertex="", message=message, detail=tuple(filter(None, details)), url=url, location=location)
        )
