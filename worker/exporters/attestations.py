"""The attestations of an image to be: read out of their trees, and made into statements.

Facts: BuildKit exporter/attestation/unbundle.go and make.go (the texts are matched by clients).
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from buildengine.attestation import PROVENANCE, SBOM_CORE, Claim, Kind, Subject, SubjectKind
from buildengine.errors import SourceError, UserError
from buildengine.inroot import open_in_root, read_regular
from buildengine.limits import DISK, offload
from buildengine.values import dataclass
from worker.exporters.statement import Named, Statement, parsed, statement
from worker.oci import jsonbytes
from worker.results import Stack
from worker.trees import Trees

_LIMIT = 256 << 20  # bytes of one statement: an SBOM of a large image has some ten MB
_MAX_ENTRIES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """`content` makes the predicate when an exporter asks for it; without it the predicate is a file of `stack`."""

    claim: Claim
    stack: Stack | None = None
    content: Callable[[], Awaitable[bytes]] | None = None


async def statements(trees: Trees, attestations: Sequence[Attestation], beside: Sequence[Named]) -> list[Statement]:
    """`attestations` are unbundled already. Raises UserError, SourceError."""
    return [statement(one.claim, await read(trees, one), beside) for one in attestations]


async def read(trees: Trees, attestation: Attestation) -> bytes:
    """The predicate."""
    if attestation.content is not None:
        return await attestation.content()
    assert attestation.stack is not None
    await trees.ensure(attestation.stack)
    path = attestation.claim.path
    with trees.open_stack(attestation.stack) as root:
        try:
            return await offload(_read, root, path, limiter=DISK)
        except OSError as error:
            raise SourceError(f"cannot read in-toto attestation {path}: {error.strerror}") from error


async def unbundled(trees: Trees, attestations: Sequence[Attestation]) -> list[Attestation]:
    """Single statements only, the SBOM of the image itself first. Raises UserError, SourceError."""
    found: list[Attestation] = []
    for one in attestations:
        _check(one)
        if one.claim.kind is Kind.BUNDLE:
            found += await _unbundle(trees, one)
            continue
        if one.claim.predicate_type.startswith(PROVENANCE) and one.content is None:
            raise UserError("frontend may not set provenance attestations")
        found.append(one)
    return sorted(found, key=lambda one: not is_core_sbom(one.claim))


def is_core_sbom(claim: Claim) -> bool:
    """Whether this is of the image itself, and not of a stage or of the context."""
    core = claim.metadata.get(SBOM_CORE)
    return core is not None and claim.path.rpartition("/")[2].partition(".")[0] == core.decode(errors="replace")


def _check(attestation: Attestation) -> None:
    claim = attestation.claim
    if claim.kind is not Kind.BUNDLE and not claim.path:
        raise UserError("attestation does not have set path")
    if attestation.stack is None and attestation.content is None:
        bundle = claim.kind is Kind.BUNDLE
        raise UserError(
            "no ref provided for attestation bundle" if bundle else "attestation does not have available content"
        )


async def _unbundle(trees: Trees, bundle: Attestation) -> list[Attestation]:
    assert bundle.stack is not None
    await trees.ensure(bundle.stack)
    with trees.open_stack(bundle.stack) as root:
        try:
            documents = await offload(_read_all, root, bundle.claim.path, limiter=DISK)
        except OSError as error:
            raise SourceError(f"cannot read attestation bundle {bundle.claim.path}: {error.strerror}") from error
    return [_unpacked(bundle, name, data) for name, data in documents]


def _unpacked(bundle: Attestation, name: str, data: bytes) -> Attestation:
    """One statement of a bundle: its predicate, its type and its subjects."""
    document = _parse(name, data)
    predicate_type = document.get("predicateType", "")
    wanted = bundle.claim.predicate_type
    if wanted and predicate_type != wanted:
        raise UserError(f"bundle entry {predicate_type} does not match required predicate type {wanted}")
    if predicate_type.startswith(PROVENANCE):
        raise UserError("frontend may not bundle provenance attestations")
    predicate = jsonbytes.compact(document.get("predicate"))

    async def content() -> bytes:
        return predicate

    path = f"{bundle.claim.path.rstrip('/')}/{name}" if bundle.claim.path else name
    claim = replace(
        bundle.claim,
        kind=Kind.IN_TOTO,
        path=path,
        predicate_type=predicate_type,
        subjects=tuple(map(_subject, document.get("subject") or ())),
    )
    return Attestation(claim=claim, content=content)


def _parse(name: str, data: bytes) -> dict[str, Any]:
    try:
        document = parsed(data)
    except ValueError as error:
        raise UserError(f"cannot decode in-toto statement {name}: {error}") from error
    kinds = {"predicateType": str, "subject": list}
    if not isinstance(document, dict) or any(
        not isinstance(document.get(key) or kind(), kind) for key, kind in kinds.items()
    ):
        raise UserError(f"cannot decode in-toto statement {name}: it has not the shape of one")
    return document


def _subject(document: dict[str, Any]) -> Subject:
    try:
        digests = [f"{algorithm}:{value}" for algorithm, value in (document.get("digest") or {}).items()]
        return Subject(kind=SubjectKind.RAW, name=str(document.get("name") or ""), digests=tuple(digests))
    except AttributeError as error:
        raise UserError("cannot decode in-toto statement: a subject has a name and digests") from error


def _read(root: int, path: str) -> bytes:
    return read_regular(root, path, limit=_LIMIT)


def _read_all(root: int, path: str) -> list[tuple[str, bytes]]:
    """The files of a directory by name. Raises OSError."""
    directory = open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        names = sorted(os.listdir(directory))
        if len(names) > _MAX_ENTRIES:
            raise UserError(f"attestation bundle {path} has {len(names)} files", hint=f"at most {_MAX_ENTRIES}")
        return [(name, read_regular(directory, name, limit=_LIMIT)) for name in names]
    finally:
        os.close(directory)
