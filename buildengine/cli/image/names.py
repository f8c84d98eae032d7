"""Names and ids of images as people write them: `app:latest`, the first twelve digits of an id."""

from __future__ import annotations

import re

from buildengine.builder import ImageInfo

NONE = "<none>"


def split(name: str) -> tuple[str, str]:
    """Repository and tag for the eye: without Docker Hub's own prefix; `<none>` where there is none."""
    if not name:
        return NONE, NONE
    name = name.partition("@")[0]
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = name, NONE
    return repository.removeprefix("docker.io/library/").removeprefix("docker.io/"), tag


def image_id(image: ImageInfo) -> str:
    return image.config_digest or image.digest


def short(digest: str) -> str:
    return digest.rpartition(":")[2][:12]


def matches(pattern: str, image: ImageInfo) -> bool:
    """Whether `pattern` (`*` and `?` stop at a slash) is the image's repository, with or without its tag."""
    repository, tag = split(image.name)
    parts = (re.escape(part) for part in re.split(r"([*?])", pattern))
    expression = "".join({r"\*": "[^/]*", r"\?": "[^/]"}.get(part, part) for part in parts)
    return bool(image.name) and any(re.fullmatch(expression, name) for name in (repository, f"{repository}:{tag}"))
