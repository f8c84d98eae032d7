"""Who asked for what in one build: each frontend has a scope, and those that it runs have scopes inside it.

The provenance of a result names the frontend whose result it is, with the arguments that it got. It lists what the
result itself was made from, and what that frontend used on its way: files that it read, images that it looked up.

Facts: BuildKit solver/llbsolver/provenance.go (provenanceBridge), solver/llbsolver/solver.go (getProvenance).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from buildengine.digest import Digest
from buildengine.platform import Platform
from llb.definition import Definition
from worker.provenance.capture import Capture, ImageMaterial, redacted

_HOST_ONLY = frozenset({"cgroup-parent", "image-resolve-mode", "platform", "cache-imports"})
_NONE: Mapping[str, str] = MappingProxyType({})

Captured = Callable[[Definition], Capture | None]
"""What a definition was made from; None for one that nobody has solved."""


class Scope:
    """`frontend` "": a definition that came as such, or a client that is the frontend itself."""

    def __init__(self, frontend: str = "", options: Mapping[str, str] = _NONE) -> None:
        self.frontend = frontend
        self.options = options
        self._images: list[ImageMaterial] = []
        self._solved: list[Definition] = []
        self._nested: list[Scope] = []

    def nested(self, frontend: str, options: Mapping[str, str]) -> Scope:
        inner = Scope(frontend, options)
        self._nested.append(inner)
        return inner

    def resolved(self, reference: str, platform: Platform | None, digest: Digest, *, is_local: bool = False) -> None:
        """The frontend has asked what this image is, maybe for a platform; `is_local`: of no registry."""
        image = ImageMaterial(reference=reference, digest=str(digest), platform=platform, is_local=is_local)
        self._images.append(image)

    def solved(self, definition: Definition, settled: Definition | None = None) -> None:
        """The frontend has asked for this, whether or not it was solved in the end. A policy may have `settled` that
        another is built in its place: the frontend's result is known by either."""
        self._solved += [definition] if settled is None or settled is definition else [definition, settled]

    def has_result(self, definition: Definition) -> None:
        """This is a result: of this very frontend, if none of the inner ones has it."""
        if not self._has(definition):
            self._solved.append(definition)

    def of(self, definition: Definition) -> Scope:
        """The scope that this definition is from: the innermost one. Identity counts, not equality."""
        for inner in self._nested:
            if inner._has(definition):
                return inner.of(definition)
        return self

    def _has(self, definition: Definition) -> bool:
        return any(definition is one for one in self.definitions())

    def definitions(self) -> Iterator[Definition]:
        yield from self._solved
        for inner in self._nested:
            yield from inner.definitions()

    def images(self) -> Iterator[ImageMaterial]:
        yield from self._images
        for inner in self._nested:
            yield from inner.images()

    def capture(
        self,
        definition: Definition,
        results: Sequence[Definition],
        captured: Captured,
        *,
        platform: Platform | None = None,
        platforms: Sequence[Platform] = (),
    ) -> Capture | None:
        """What one of the `results` of this scope was made from. None where nobody has solved it.

        In a set by `platforms` an image that was looked up for all of them counts for its own only.
        """
        found = captured(definition)
        if found is None:
            return None
        others = [one for one in self.definitions() if not any(one is each for each in results)]
        beside = [captured(other) for other in {id(one): one for one in others}.values()]
        images = tuple(self.images())
        if platform is not None:
            images = _for_platform(images, platform, platforms)
        return Capture.of([found, *filter(None, beside), Capture(images=images)]).tidied()

    @property
    def arguments(self) -> dict[str, str]:
        """The frontend's options but for what is about this host, or asks for attestations."""
        context = self.options.get("contextkey") or "context"
        return {
            name: redacted(value) if name == context or name.startswith("context:") else value
            for name, value in self.options.items()
            if name not in _HOST_ONLY and not name.startswith("attest:")
        }


def _for_platform(
    images: Iterable[ImageMaterial], platform: Platform, platforms: Sequence[Platform]
) -> tuple[ImageMaterial, ...]:
    """Without the images of other platforms, where an image was looked up for every one of them."""
    listed = tuple(images)
    built: dict[str, list[Platform]] = {}
    for image in listed:
        built.setdefault(image.reference, []).extend([image.platform] if image.platform else [])
    for_all = {reference for reference, found in built.items() if {*map(_kind, platforms)} <= {*map(_kind, found)}}

    def counts(image: ImageMaterial) -> bool:
        if image.reference not in for_all or image.platform is None:
            return True
        return (image.platform.os, image.platform.architecture) == (platform.os, platform.architecture)

    return tuple(filter(counts, listed))


def _kind(platform: Platform) -> tuple[str, str, str]:
    return platform.os, platform.architecture, platform.variant
