"""The document of a provenance, from what was captured. Pure.

The fields that SLSA does not know are BuildKit's, under BuildKit's names: its clients, and scanners of supply
chains, read them. Version 0.2 is made first and the other from it, as BuildKit does.

Facts: https://slsa.dev/provenance/v0.2 and /v1; BuildKit solver/llbsolver/provenance/predicate.go and types/types.go,
solver/llbsolver/provenance.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from types import MappingProxyType
from typing import Any

from buildengine.digest import Digest
from buildengine.errors import UserError
from buildengine.platform import Platform
from buildengine.units import timestamp
from buildengine.values import dataclass
from llb import giturl
from llb.definition import Definition
from worker.oci import jsonbytes
from worker.provenance.capture import Access, Capture, redacted
from worker.provenance.options import ProvenanceOptions, Version
from worker.provenance.purl import DOCKER, OCI, image_purl
from worker.provenance.steps import Steps, source_document, steps

Document = dict[str, Any]
Layers = Mapping[tuple[Digest, int], Sequence[Sequence[Document]]]

BUILD_TYPE_02 = "https://mobyproject.org/buildkit@v1"
BUILD_TYPE_1 = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md"
_METADATA_02, _HERMETIC_02 = f"{BUILD_TYPE_02}#metadata", f"{BUILD_TYPE_02}#hermetic"
_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One build: who asked for what, and when. Times are seconds since the epoch; `custom` is the daemon's own part of
    the environment, `frontend` "" where there was none in the engine."""

    id: str
    started: float
    platform: Platform
    frontend: str = ""
    arguments: Mapping[str, str] = field(default_factory=lambda: _NONE)
    custom: Mapping[str, Any] = field(default_factory=lambda: _NONE)


def predicate(
    invocation: Invocation,
    captured: Capture,
    options: ProvenanceOptions,
    definition: Definition,
    *,
    finished: float,
    layers: Layers = MappingProxyType({}),
) -> bytes:
    """The document. `layers` are, by (digest, output) of an operation, the layers of its results, for mode=max.

    Raises InvalidDefinition.
    """
    made = _predicate(invocation, captured, options, finished)
    if options.whole:
        _add_steps(made, steps(definition), definition, layers)
    else:
        _leave_out_arguments(made)
    return jsonbytes.compact(made if options.version is Version.SLSA02 else _as_version_1(made))


def _predicate(invocation: Invocation, captured: Capture, options: ProvenanceOptions, finished: float) -> Document:
    arguments = dict(invocation.arguments)
    config_source = _config_source(arguments, captured)
    vcs = _version_control(arguments)
    complete = not (captured.incomplete or captured.locals)
    metadata: Document = {
        "buildInvocationID": invocation.id,
        "buildStartedOn": timestamp(invocation.started),
        "buildFinishedOn": timestamp(finished),
        "completeness": {"parameters": bool(invocation.frontend), "environment": True, "materials": complete},
        "reproducible": options.reproducible,
        _METADATA_02: {"vcs": vcs} if vcs else {},
    }
    if complete and not captured.network:
        metadata[_HERMETIC_02] = True
    materials = _materials(captured)
    return {
        "builder": {"id": options.builder_id},
        "buildType": BUILD_TYPE_02,
        **({"materials": materials} if materials else {}),
        "invocation": {
            "configSource": config_source,
            "parameters": _parameters(invocation.frontend, arguments, captured),
            "environment": {"platform": str(invocation.platform), **invocation.custom},
        },
        "metadata": metadata,
    }


def _materials(captured: Capture) -> list[Document]:
    images = [
        _material(image_purl(OCI if image.is_local else DOCKER, image.reference, image.platform), image.digest)
        for image in captured.images
    ]
    git = [_commit(one.url, one.commit) for one in captured.git]
    return [*images, *git, *(_material(one.url, one.digest) for one in captured.http)]


def _material(uri: str, digest: str) -> Document:
    algorithm, _, value = digest.partition(":")
    return {"uri": uri, "digest": {algorithm: value}} if value else {"uri": uri}


def _commit(uri: str, commit: str) -> Document:
    return {"uri": uri, "digest": {"sha256" if len(commit) == 64 else "sha1": commit}}


def _config_source(arguments: dict[str, str], captured: Capture) -> Document:
    """What says how to build. It is taken out of the arguments."""
    key = arguments.get("contextkey") or ("input:context" if arguments.get("input:context") else "context")
    source: Document = {}
    if context := arguments.get(key):
        source = _found(captured, context) or {"uri": context}
        source["uri"] = redacted(source["uri"])
        del arguments[key]
    if arguments.get("filename"):
        source["entryPoint"] = arguments.pop("filename")
    return source


def _found(captured: Capture, context: str) -> Document | None:
    """The material that this context has become, if it is one."""
    url = _repository(context)
    for one in captured.git:
        if one.url == url:
            return _commit(one.url, one.commit)
    return next((_material(one.url, one.digest) for one in captured.http if one.url == url), None)


def _repository(context: str) -> str:
    """A git context without its subdirectory; anything else as it is."""
    if not giturl.is_transport(context):
        return context
    try:
        named = giturl.parse(context)
    except UserError:
        return context
    return f"{named.remote}#{named.ref}" if named.ref else named.remote


def _version_control(arguments: dict[str, str]) -> Document:
    """What the client says of the directory's repository (`vcs:`). It is taken out of the arguments."""
    found = {name.removeprefix("vcs:"): arguments.pop(name) for name in [*arguments] if name.startswith("vcs:")}
    if "source" in found:
        found["source"] = redacted(found["source"])
    return {name: value for name, value in sorted(found.items()) if value}


def _parameters(frontend: str, arguments: Mapping[str, str], captured: Capture) -> Document:
    document: Document = {
        "frontend": frontend,
        "args": dict(sorted(arguments.items())),
        "secrets": [_access(one) for one in captured.secrets],
        "ssh": [_access(one) for one in captured.ssh],
        "locals": [{"name": name} for name in captured.locals],
    }
    return {name: value for name, value in document.items() if value}


def _access(access: Access) -> Document:
    return {"id": access.id, "optional": True} if access.optional else {"id": access.id}


def _leave_out_arguments(made: Document) -> None:
    """mode=min: what may be confidential is not told, and that it is not."""
    parameters = made["invocation"]["parameters"]
    arguments = parameters.get("args", {})
    kept = {name: value for name, value in arguments.items() if not name.startswith(("build-arg:", "label:"))}
    if len(kept) < len(arguments):
        made["metadata"]["completeness"]["parameters"] = False
    parameters["args"] = kept
    left_out = ("secrets", "ssh") if kept else ("secrets", "ssh", "args")
    for name in left_out:
        parameters.pop(name, None)


def _add_steps(made: Document, all_steps: Steps, definition: Definition, layers: Layers) -> None:
    metadata = made.pop("metadata")
    made["buildConfig"] = all_steps.document()
    made["metadata"] = metadata
    source = source_document(definition.source, all_steps.numbers)
    if source is not None:
        metadata[_METADATA_02]["source"] = source
    named = {
        f"step{all_steps.numbers[digest]}:{output}": list(chains)
        for (digest, output), chains in layers.items()
        if digest in all_steps.numbers
    }
    if named:
        metadata[_METADATA_02]["layers"] = dict(sorted(named.items()))


def _as_version_1(made: Document) -> Document:
    invocation, metadata = made["invocation"], made["metadata"]
    environment = dict(invocation["environment"])
    source = dict(invocation["configSource"])
    if "entryPoint" in source:
        source["path"] = source.pop("entryPoint")
    internal = {"builderPlatform": environment.pop("platform"), **environment}
    if made.get("buildConfig"):
        internal["buildConfig"] = made["buildConfig"]
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE_1,
            **({"resolvedDependencies": made["materials"]} if "materials" in made else {}),
            "externalParameters": {"configSource": source, "request": invocation["parameters"]},
            "internalParameters": dict(sorted(internal.items())),
        },
        "runDetails": {"builder": made["builder"], "metadata": _metadata_1(metadata)},
    }


def _metadata_1(metadata: Document) -> Document:
    complete = metadata["completeness"]
    return {
        "invocationID": metadata["buildInvocationID"],
        "startedOn": metadata["buildStartedOn"],
        "finishedOn": metadata["buildFinishedOn"],
        "buildkit_metadata": metadata[_METADATA_02],
        **({"buildkit_hermetic": True} if _HERMETIC_02 in metadata else {}),
        "buildkit_completeness": {
            "request": complete["parameters"],
            "resolvedDependencies": complete["materials"],
        },
        **({"buildkit_reproducible": True} if metadata["reproducible"] else {}),
    }
