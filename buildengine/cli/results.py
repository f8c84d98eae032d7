"""What `pybuild build` leaves on files and standard output: the image id, the metadata file. Builds nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from buildengine.builder import BuildOutcome, Export
from buildengine.cli.flags import is_false
from buildengine.errors import UserError
from buildengine.wholefile import whole_file


def image_id(outcome: BuildOutcome) -> str:
    """The config digest, by which people know an image; the index digest where there are several configs; or ""."""
    metadata = outcome.metadata
    found = metadata.get("containerimage.config.digest") or metadata.get("containerimage.digest")
    return found or outcome.image_digest or ""


def check_destinations(exports: tuple[Export, ...], stdout: IO[str]) -> None:
    """Refuse what could only fail after the build. Raises UserError."""
    for export in exports:
        if export.dest == "-" and stdout.isatty():
            raise UserError(
                f"refusing to write the output {export.type} to the terminal",
                hint=f"redirect standard output or use --output type={export.type},dest=FILE",
            )
        if export.dest in (None, "-"):
            continue
        path = Path(export.dest or "")
        as_directory = export.type == "local" or is_false(export.attrs.get("tar", ""))
        if as_directory and path.exists() and not path.is_dir():
            raise UserError(f"--output: the destination {path} is a file, not a directory")
        if not as_directory and path.is_dir():
            raise UserError(f"--output: the destination {path} is a directory", hint=f"e.g. dest={path}/image.tar")
        if not as_directory and not path.parent.is_dir():
            raise UserError(f"--output: there is no directory {path.parent} for {path.name}", hint="make it first")


def prepare_files(*files: Path | None) -> None:
    """Remove what an earlier build left, so that it cannot be taken for this one's. Raises UserError."""
    for file in files:
        if file is None:
            continue
        if not file.absolute().parent.is_dir():
            raise UserError(f"cannot write {file}: there is no directory {file.absolute().parent}")
        if file.is_dir():
            raise UserError(f"cannot write {file}: it is a directory")
        if file.is_file() and not file.is_symlink():  # not /dev/stdout
            with _refusing(file):
                file.unlink()


def write_image_id(file: Path, outcome: BuildOutcome) -> None:
    write_whole(file, image_id(outcome).encode())


def write_metadata(file: Path, outcome: BuildOutcome) -> None:
    """The exporter's response as JSON; a value that is JSON in base64 is written as what it says.

    `buildx.build.ref` is the build, as buildx writes it: `builder/node/ref`.
    """
    import json  # few builds need it

    found = {"buildx.build.ref": f"default/default/{outcome.ref}", **outcome.metadata}
    document = {key: _decoded(value) for key, value in sorted(found.items())}
    write_whole(file, json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n")


def _decoded(value: str) -> Any:
    import base64
    import json

    with suppress(ValueError, RecursionError):
        found = json.loads(base64.b64decode(value, validate=True))
        if found and isinstance(found, dict | list):
            return found
    return value


def write_whole(file: Path, data: bytes) -> None:
    """Raises UserError."""
    with _refusing(file), whole_file(file) as fd, os.fdopen(fd, "wb", closefd=False) as stream:
        stream.write(data)


@contextmanager
def _refusing(file: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from None
