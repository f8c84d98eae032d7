"""From flags to a BuildRequest: the decisions of `pybuild build`, on values alone.

The options carry BuildKit's names (docker/buildx build/opt.go:toSolveOpt), so that every frontend knows them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from buildengine.builder import DOCKERFILE, BuildRequest, CacheEntry, Export, SecretSource, SshSource, frontend_of
from buildengine.cli.attests import Attest
from buildengine.cli.attests import options as attest_options
from buildengine.cli.contexts import Inputs
from buildengine.cli.flags import Annotation, annotated, is_false, named
from buildengine.cli.missing import spelling
from buildengine.cli.namedcontexts import named_contexts
from buildengine.cli.questions import CHECK, Question
from buildengine.errors import UserError
from buildengine.platform import Platform
from buildengine.values import dataclass

if TYPE_CHECKING:  # few builds have any
    from buildengine.sourcepolicy import Policy

Assignment = tuple[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildFlags:
    """The flags of `pybuild build` as they were read, under click's names."""

    context: str
    tag: tuple[str, ...] = ()
    file: str | None = None
    frontend: str | None = None
    opt: tuple[Assignment, ...] = ()
    target: str | None = None
    build_arg: tuple[Assignment, ...] = ()
    build_context: tuple[tuple[str, str], ...] = ()
    source_policy_file: Path | None = None
    platform: tuple[tuple[Platform, ...], ...] = ()
    output: tuple[Export, ...] = ()
    load: bool = False
    push: bool = False
    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()
    pull: bool = False
    cache_from: tuple[CacheEntry, ...] = ()
    cache_to: tuple[CacheEntry, ...] = ()
    secret: tuple[SecretSource, ...] = ()
    ssh: tuple[SshSource, ...] = ()
    label: tuple[Assignment, ...] = ()
    annotation: tuple[Annotation, ...] = ()
    attest: tuple[Attest, ...] = ()
    provenance: Attest | None = None
    sbom: Attest | None = None
    network: str = "default"
    allow: tuple[str, ...] = ()
    ulimit: tuple[tuple[str, int, int], ...] = ()
    shm_size: int | None = None
    add_host: tuple[tuple[str, ...], ...] = ()
    cgroup_parent: str | None = None
    explain: bool = False
    call: Question | None = None
    check: bool = False
    progress: str = "auto"
    quiet: bool = False
    iidfile: Path | None = None
    metadata_file: Path | None = None

    @property
    def question(self) -> Question | None:
        """What is asked instead of a build."""
        return CHECK if self.check else self.call


def make_request(flags: BuildFlags, inputs: Inputs, environ: Mapping[str, str]) -> BuildRequest:
    """What the engine is asked to do. Raises UserError for flags that contradict each other."""
    if flags.no_cache and flags.no_cache_filter:
        raise UserError("--no-cache and --no-cache-filter exclude each other")
    if flags.check and flags.call not in (None, CHECK):
        raise UserError("--check and --call exclude each other", hint="--check is --call=check")
    entitlements = set(flags.allow)
    if flags.network == "host":
        entitlements.add("network.host")
    frontend = flags.frontend or frontend_of(inputs.options.get("filename", ""))
    platforms = tuple(dict.fromkeys(platform for group in flags.platform for platform in group))
    contexts = named_contexts(flags.build_context)
    asked = flags.question.options if flags.question is not None else {}
    return BuildRequest(
        ref=os.urandom(16).hex(),
        frontend=frontend,
        options={
            **inputs.options,
            **contexts.options,
            **_options(flags, platforms, environ),
            **_for_authors(frontend, flags),
            **asked,
        },
        directories={**inputs.directories, **contexts.directories},
        platforms=platforms,
        exports=_exports(flags, platforms) if flags.question is None else (),
        secrets=tuple({secret.id: _found(secret, environ) for secret in flags.secret}.values()),
        ssh=_agents(flags.ssh, environ),
        entitlements=frozenset(entitlements),
        cache_imports=flags.cache_from,
        cache_exports=_cache_exports(flags, environ) if flags.question is None else (),
        source_policy=_source_policy(flags.source_policy_file, environ),
        layouts=contexts.layouts,
        explain=flags.explain,
        inline_dockerfile=inputs.inline_dockerfile,
        context_archive=inputs.context_archive,
    )


def _options(flags: BuildFlags, platforms: Sequence[Platform], environ: Mapping[str, str]) -> dict[str, str]:
    options = {f"build-arg:{name}": value for name, value in _build_args(flags, environ).items()}
    options |= {f"label:{name}": value or "" for name, value in flags.label}
    if flags.no_cache or flags.no_cache_filter:
        options["no-cache"] = ",".join(flags.no_cache_filter)  # empty: every stage
    if flags.pull:
        options["image-resolve-mode"] = "pull"
    if flags.network != "default":
        options["force-network-mode"] = flags.network
    given = {
        "platform": ",".join(map(str, platforms)),
        "target": flags.target,
        "cgroup-parent": flags.cgroup_parent,
        "shm-size": str(flags.shm_size) if flags.shm_size else None,
        "add-hosts": ",".join(host for hosts in flags.add_host for host in hosts),
        "ulimit": ",".join(f"{name}={soft}:{hard}" for name, soft, hard in _last_by_name(flags.ulimit)),
    }
    asked = (*flags.attest, *(one for one in (flags.provenance, flags.sbom) if one is not None))
    return options | {key: value for key, value in given.items() if value} | attest_options(asked)


def _for_authors(frontend: str, flags: BuildFlags) -> dict[str, str]:
    """What the Dockerfile frontend has no use for: options of the user's, and the names of secrets."""
    options = {name: value or "" for name, value in flags.opt}
    if frontend != DOCKERFILE and flags.secret:
        options["secret-ids"] = ",".join(dict.fromkeys(secret.id for secret in flags.secret))
    return options


def _source_policy(file: Path | None, environ: Mapping[str, str]) -> Policy | None:
    """From the file that is named, or that of buildx's variable."""
    named = environ.get("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY")
    path = file or (Path(named) if named else None)
    if path is None:
        return None

    from buildengine.sourcepolicy import parse

    try:
        return parse(path.read_bytes(), what=str(path))
    except OSError as error:
        raise UserError(f"the source policy {path} cannot be read: {error.strerror}") from error


def _build_args(flags: BuildFlags, environ: Mapping[str, str]) -> dict[str, str]:
    """A name alone takes its value from the environment, or is left out."""
    arguments: dict[str, str] = {}
    for name, value in flags.build_arg:
        found = environ.get(name) if value is None else value
        if found is not None:
            arguments[name] = found
    if environ.get("SOURCE_DATE_EPOCH"):  # https://reproducible-builds.org/specs/source-date-epoch/
        arguments.setdefault("SOURCE_DATE_EPOCH", environ["SOURCE_DATE_EPOCH"])
    return arguments


def _last_by_name(limits: tuple[tuple[str, int, int], ...]) -> list[tuple[str, int, int]]:
    return sorted({limit[0]: limit for limit in limits}.values())


def _exports(flags: BuildFlags, platforms: Sequence[Platform]) -> tuple[Export, ...]:
    """Without --output the image goes to the local store, under the names of --tag or dangling."""
    exports = _pushed(flags.output) if flags.push else list(flags.output)
    if not exports or (flags.load and all(export.type != "image" for export in exports)):
        exports.append(Export(type="image"))
    if flags.load:
        exports = [_kept(export) for export in exports]
    if len(platforms) > 1:
        exports = [_indexed(export) for export in exports]
    if sum(export.dest == "-" for export in exports) > 1:
        raise UserError("more than one --output goes to standard output")
    if flags.iidfile is not None:
        _check_has_id(exports)
    exports = [
        _absolute(annotated(named(export, flags.tag), flags.annotation))
        for export in exports
        if export.type != "cacheonly"
    ]
    if any(_is_pushed(export) and not export.attrs.get("name") for export in exports):
        raise UserError("an image that is pushed needs a name", hint="e.g. -t registry.example/app:1")
    return tuple(exports)


def _cache_exports(flags: BuildFlags, environ: Mapping[str, str]) -> tuple[CacheEntry, ...]:
    """A build argument says it as well: so docker was told before there was --cache-to, and buildx still is."""
    asked = _build_args(flags, environ).get("BUILDKIT_INLINE_CACHE", "")
    inline = (CacheEntry(type="inline"),) if asked.lower() in ("1", "t", "true") else ()
    return (*flags.cache_to, *inline)


def _is_pushed(export: Export) -> bool:
    return "push" in export.attrs and not is_false(export.attrs["push"])


def _pushed(outputs: tuple[Export, ...]) -> list[Export]:
    """--push: every image output is pushed; without one, one more is made (buildx's rule)."""
    exports = [replace(e, attrs={**e.attrs, "push": "true"}) if e.type == "image" else e for e in outputs]
    if all(export.type != "image" for export in exports):
        exports.append(Export(type="image", attrs={"push": "true"}))
    return exports


def _kept(export: Export) -> Export:
    """--load: an image that is pushed goes to the local store as well, unless it says otherwise."""
    return replace(export, attrs={"store": "true", **export.attrs}) if _is_pushed(export) else export


def _indexed(export: Export) -> Export:
    """An image of several platforms is OCI's index, unless it says otherwise.

    buildx gets that from the attestations that it asks for. Docker's list cannot go through an OCI layout and back
    under its digest: skopeo converts it.
    """
    return replace(export, attrs={"oci-mediatypes": "true", **export.attrs}) if export.type == "image" else export


def _check_has_id(exports: list[Export]) -> None:
    """buildx refuses the first too; for the second it writes an empty file, which everything after it trips over."""
    if any(export.type in ("local", "tar") for export in exports):
        raise UserError("--iidfile: outputs of type local and tar are no image and have no id")
    if all(export.type == "cacheonly" for export in exports):
        raise UserError("--iidfile: an output of type cacheonly is no image and has no id")


def _absolute(export: Export) -> Export:
    if export.dest in (None, "-"):
        return export
    return replace(export, dest=os.path.abspath(export.dest or ""))


def _found(secret: SecretSource, environ: Mapping[str, str]) -> SecretSource:
    """Where a secret is: with an id alone, the variable of that name or else the file."""
    if secret.env is None and secret.file is None:
        if secret.id in environ:
            return replace(secret, env=secret.id)
        secret = replace(secret, file=Path(secret.id))
    if secret.file is not None and not secret.file.exists():
        raise UserError(f"--secret {secret.id}: there is no file {secret.file}", hint=spelling(str(secret.file)))
    return secret


def _agents(sources: tuple[SshSource, ...], environ: Mapping[str, str]) -> tuple[SshSource, ...]:
    agents: dict[str, SshSource] = {}
    for source in sources:
        if source.id in agents:
            raise UserError(f"--ssh {source.id} is given twice")
        if not source.paths and not environ.get("SSH_AUTH_SOCK"):
            raise UserError(
                f"--ssh {source.id}: no agent is running (SSH_AUTH_SOCK is not set)",
                hint=f"start one with: eval $(ssh-agent), or name its socket: --ssh {source.id}=SOCKET",
            )
        paths = source.paths or (Path(environ["SSH_AUTH_SOCK"]),)
        missing = [path for path in paths if not path.exists()]
        if missing:
            raise UserError(f"--ssh {source.id}: there is no {missing[0]}", hint=spelling(str(missing[0])))
        if len(paths) > 1 or not paths[0].is_socket():
            raise UserError(
                f"--ssh {source.id}: {paths[0]} is not the socket of an agent; keys are not supported",
                hint=f"give the key to an agent: ssh-add {paths[0]}, and use --ssh {source.id}",
            )
        agents[source.id] = replace(source, paths=paths)
    return tuple(agents.values())
