"""All stages that the target needs, in the order of the file: every instruction applied to what came before. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from buildengine.errors import BuildError, ParseError
from buildengine.platform import DEFAULT_PATH
from buildengine.values import dataclass
from frontends.dockerfile import instructions as ins
from frontends.dockerfile.convert import ports, run, settings, transfer
from frontends.dockerfile.convert.draft import Draft, Shared
from frontends.dockerfile.imageconfig import Image
from frontends.dockerfile.stages import Graph, Stage, Step
from llb.state import State

_APPLY: Mapping[type[ins.Instruction], Callable[..., None]] = {
    ins.Arg: settings.arg,
    ins.Cmd: settings.cmd,
    ins.Entrypoint: settings.entrypoint,
    ins.Env: settings.env,
    ins.Expose: ports.expose,
    ins.Healthcheck: settings.healthcheck,
    ins.Label: settings.label,
    ins.Maintainer: settings.maintainer,
    ins.OnBuild: settings.on_build,
    ins.Shell: settings.shell,
    ins.StopSignal: settings.stop_signal,
    ins.User: settings.user,
    ins.Volume: settings.volume,
    ins.Workdir: settings.workdir,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """`base_config` is the config of the image that the target is based on, b"" when there is none.

    `drafts` are all stages that were needed, as they ended.
    """

    state: State
    image: Image
    base_config: bytes
    target: Draft
    drafts: Mapping[Stage, Draft]


def convert(graph: Graph, targets: Sequence[Stage], shared: Shared) -> Converted:
    """The last of the targets. Everything reachable must be loaded. Raises ParseError, located; what is unreachable
    is not looked at."""
    drafts: dict[Stage, Draft] = {}
    reachable = graph.reachable(*targets)
    for stage in reachable:
        if stage.implicit:
            drafts[stage] = _begin(stage, shared, drafts)
    for stage in reachable:
        if not stage.implicit:
            drafts[stage] = draft = _begin(stage, shared, drafts)
            if stage.context is None:
                _inherit(draft)
                for step in stage.steps:
                    _apply(draft, step, drafts)
    targets[-1].used.add("/")
    found = drafts[targets[-1]]
    return Converted(
        state=found.state,
        image=_final_image(found, shared),
        base_config=found.base_config,
        target=found,
        drafts=drafts,
    )


def _begin(stage: Stage, shared: Shared, drafts: Mapping[Stage, Draft]) -> Draft:
    if stage.base is not None:
        return drafts[stage.base].child(stage)
    loaded = stage.loaded
    if loaded is None:
        raise ParseError(f"stage {stage.label} is not loaded").located(stage.location)
    return Draft(
        stage=stage,
        shared=shared,
        state=loaded.state,
        image=replace(loaded.image, history=(), config=replace(loaded.image.config, on_build=())),
        platform=loaded.platform,
        history=list(loaded.image.history),
        base_config=loaded.base,
        number=int(loaded.pulled and stage.total > 0),
    )


def _inherit(draft: Draft) -> None:
    """Give the state what the base image's config and the options say."""
    options, config = draft.shared.options, draft.config
    if config.variable("PATH") is None and draft.platform.os != "windows":
        draft.configure(replace(config, env=(*config.env, f"PATH={DEFAULT_PATH}")))
    draft.carry()
    inherited: dict[str, str] = {}
    for entry in draft.config.env:
        name, _, value = entry.partition("=")
        inherited.pop(name, None)  # the last one counts, where it stands
        inherited[name] = value
    draft.state = replace(draft.state, around=draft.state.around.with_env(inherited))
    if options.hostname:
        draft.state = draft.state.with_hostname(options.hostname)
    if draft.config.working_dir:
        settings.enter(draft, draft.config.working_dir)
    if draft.config.user:
        draft.state = draft.state.with_user(draft.config.user)
    draft.state = draft.state.with_network(options.network)
    if draft.stage.base is None:  # the others have them from their base
        for host in options.extra_hosts:
            draft.state = draft.state.with_extra_host(host.host, host.ip)
        for limit in options.ulimits:
            draft.state = draft.state.with_ulimit(limit.name, limit.soft, limit.hard)
        if options.cgroup_parent:
            draft.state = draft.state.with_cgroup_parent(options.cgroup_parent)


def _apply(draft: Draft, step: Step, drafts: Mapping[Stage, Draft]) -> None:
    instruction = step.instruction
    draft.on_build = step.on_build
    try:
        sources = [_source(draft, instruction, source, drafts) for source in step.sources]
        match instruction:
            case ins.Run():
                run.run(draft, instruction, sources)
            case ins.Copy() | ins.Add():
                transfer.transfer(draft, instruction, sources[0] if sources else None)
            case _:
                _APPLY[type(instruction)](draft, instruction)
    except BuildError as error:
        raise error.located(instruction.location) from None


def _source(
    draft: Draft, instruction: ins.Instruction, source: Stage | None, drafts: Mapping[Stage, Draft]
) -> Draft | None:
    if source is None or source in drafts:
        return drafts[source] if source else None
    name = instruction.source_stage if isinstance(instruction, ins.Copy) else source.name or source.label
    problem = (
        f'cannot copy from stage "{name}", it needs to be defined before current stage "{draft.stage.label}"'
        if isinstance(instruction, ins.Copy)
        else f'cannot mount from stage "{name}", stage needs to be defined before current command'
    )
    raise ParseError(problem, hint="move that stage up: files are taken from stages above only")


def _final_image(draft: Draft, shared: Shared) -> Image:
    """The config of the result: labels of the command, and the platform that was asked for."""
    image, platform = draft.finished_image(), shared.target_platform
    if shared.options.labels:
        image = replace(image, config=replace(image.config, labels={**image.config.labels, **shared.options.labels}))
    if not shared.options.implicit_platform:
        same = (image.os, image.architecture) == (platform.os, platform.architecture)
        image = replace(
            image,
            os=platform.os,
            architecture=platform.architecture,
            variant=platform.variant or (image.variant if same else ""),
            os_version=platform.os_version or (image.os_version if same else ""),
            os_features=platform.os_features or image.os_features,
        )
    normal = image.platform
    if normal is None:
        return image
    return replace(image, os=normal.os, architecture=normal.architecture, variant=normal.variant)
