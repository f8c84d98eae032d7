"""The instructions that change what an image says, not what it holds. Pure."""

from __future__ import annotations

import re
import signal
from dataclasses import replace

from buildengine.errors import ParseError
from frontends.dockerfile import imagepaths
from frontends.dockerfile import instructions as ins
from frontends.dockerfile.convert.draft import NOT_IN_ENVIRONMENT, Draft, with_shell
from frontends.dockerfile.imageconfig import Health
from frontends.dockerfile.lint import names_a_secret
from frontends.dockerfile.notation import show_duration
from frontends.dockerfile.suggest import did_you_mean
from frontends.dockerfile.words import quote
from llb.actions import KEEP_TIME, mkdir


def env(draft: Draft, instruction: ins.Env) -> None:
    """All values see the environment before the instruction."""
    pairs = _expanded(draft, instruction)
    for pair, (key, value) in zip(instruction.pairs, pairs, strict=True):
        _check_legacy(draft, instruction, pair)
        _check_secret(draft, instruction, "ENV", key)
        draft.state = draft.state.with_env(key, value)
        draft.variables[key] = value
    draft.commit(" ".join(["ENV", *[f"{key}={value}" for key, value in pairs]]))


def label(draft: Draft, instruction: ins.Label) -> None:
    pairs = _expanded(draft, instruction)
    for pair in instruction.pairs:
        _check_legacy(draft, instruction, pair)
    draft.configure(replace(draft.config, labels={**draft.config.labels, **dict(pairs)}))
    draft.commit(" ".join(["LABEL", *[f"{key}={value}" for key, value in pairs]]))


def _expanded(draft: Draft, instruction: ins.Env | ins.Label) -> list[tuple[str, str]]:
    return [
        (draft.expand(pair.key, instruction), draft.expand(pair.value or "", instruction)) for pair in instruction.pairs
    ]


def _check_legacy(draft: Draft, instruction: ins.PairInstruction, pair: ins.KeyValue) -> None:
    if pair.legacy:
        name = instruction.keyword
        message = f'"{name} key=value" should be used instead of legacy "{name} key value" format'
        draft.shared.linter.found("LegacyKeyValueFormat", message, instruction.location)


def _check_secret(draft: Draft, instruction: ins.PairInstruction, name: str, key: str) -> None:
    if names_a_secret(key):
        message = f"Do not use ARG or ENV instructions for sensitive data ({name} {quote(key)})"
        draft.shared.linter.found("SecretsUsedInArgOrEnv", message, instruction.location)


def arg(draft: Draft, instruction: ins.Arg) -> None:
    """--build-arg wins over the default here, which wins over the ARG before the first FROM."""
    shown = []
    for pair in instruction.pairs:
        _check_secret(draft, instruction, "ARG", pair.key)
        value = draft.shared.options.build_args.get(pair.key)
        if value is None:
            if pair.value is None:
                value = draft.shared.global_args.get(pair.key)
            else:
                value = draft.expand(pair.value, instruction)
        if value is not None and pair.key not in NOT_IN_ENVIRONMENT:
            draft.state = draft.state.with_env(pair.key, value)
        draft.args[pair.key] = value
        shown.append(pair.key if value is None else f"{pair.key}={value}")
    draft.commit("ARG " + " ".join(shown))


def cmd(draft: Draft, instruction: ins.Cmd) -> None:
    argv = _argv(draft, instruction)
    draft.configure(replace(draft.config, cmd=argv, args_escaped=True))
    draft.commit(f"CMD {_list(argv)}")


def entrypoint(draft: Draft, instruction: ins.Entrypoint) -> None:
    """An inherited CMD was meant for the inherited ENTRYPOINT."""
    argv = _argv(draft, instruction)
    inherited = "CMD" not in draft.last
    draft.configure(replace(draft.config, entrypoint=argv, cmd=() if inherited else draft.config.cmd))
    draft.commit(f"ENTRYPOINT {_list(argv)}")


def _argv(draft: Draft, instruction: ins.CommandInstruction) -> tuple[str, ...]:
    draft.only_last_counts(instruction)
    if not instruction.shell:
        return instruction.argv
    if not draft.config.shell:
        message = (
            f"JSON arguments recommended for {instruction.keyword} to prevent unintended behavior related to OS signals"
        )
        draft.shared.linter.found("JSONArgsRecommended", message, instruction.location)
    return with_shell(draft.image, instruction.argv)


def _list(argv: tuple[str, ...]) -> str:
    return f"[{' '.join(map(quote, argv))}]"


def shell(draft: Draft, instruction: ins.Shell) -> None:
    draft.configure(replace(draft.config, shell=instruction.arguments))
    draft.commit(f"SHELL [{' '.join(instruction.arguments)}]")


def healthcheck(draft: Draft, instruction: ins.Healthcheck) -> None:
    draft.only_last_counts(instruction)
    if instruction.disabled:
        health = Health(test=("NONE",))
    else:
        health = Health(
            test=("CMD-SHELL" if instruction.shell else "CMD", *instruction.argv),
            interval=instruction.interval,
            timeout=instruction.timeout,
            start_period=instruction.start_period,
            start_interval=instruction.start_interval,
            retries=instruction.retries,
        )
    draft.configure(replace(draft.config, health=health))
    times = (health.interval, health.timeout, health.start_period, health.start_interval)
    shown = [_list(health.test), *[quote(show_duration(time)) for time in times], _quote_rune(health.retries)]
    draft.commit(f"HEALTHCHECK &{{{' '.join(shown)}}}")


def _quote_rune(number: int) -> str:
    """Go's %q of a number: the character with that code. That is how the history shows the retries."""
    char = chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else "\ufffd"
    return {"'": r"'\''", '"': "'\"'"}.get(char) or f"'{quote(char)[1:-1]}'"


def user(draft: Draft, instruction: ins.User) -> None:
    name = draft.expand(instruction.argument, instruction)
    draft.state = draft.state.with_user(name)
    draft.configure(replace(draft.config, user=name))
    draft.commit(f"USER {name}")


def volume(draft: Draft, instruction: ins.Volume) -> None:
    volumes = tuple(draft.expand(path, instruction) for path in instruction.arguments)
    if "" in volumes:
        raise ParseError("VOLUME specified can not be an empty string", hint="is a variable empty?")
    draft.configure(replace(draft.config, volumes=draft.config.volumes.union(volumes)))
    draft.commit(f"VOLUME [{' '.join(volumes)}]")


_SIGNALS = {name.removeprefix("SIG") for name in signal.Signals.__members__} | {"CLD", "IO", "IOT", "POLL", "STKFLT"}
_REALTIME = re.compile(r"RTMIN(\+([1-9]|1[0-5]))?|RTMAX(-([1-9]|1[0-4]))?")


def stop_signal(draft: Draft, instruction: ins.StopSignal) -> None:
    name = draft.expand(instruction.argument, instruction)
    bare = name.upper().removeprefix("SIG")
    if re.fullmatch("[+-]?[0-9]{1,9}", name):
        known = int(name) != 0
    else:
        known = bare in _SIGNALS or _REALTIME.fullmatch(bare) is not None
    if not known:
        suggestion = did_you_mean(bare, _SIGNALS, prefix="SIG")
        raise ParseError(f"invalid signal: {name}{suggestion}", hint="write a name, like SIGTERM, or a number")
    draft.configure(replace(draft.config, stop_signal=name))
    draft.commit(f"STOPSIGNAL {name}")


def maintainer(draft: Draft, instruction: ins.Maintainer) -> None:
    draft.image = replace(draft.image, author=instruction.argument)
    draft.commit(f"MAINTAINER {instruction.argument}")


def on_build(draft: Draft, instruction: ins.OnBuild) -> None:
    draft.configure(replace(draft.config, on_build=(*draft.config.on_build, instruction.argument)))


def workdir(draft: Draft, instruction: ins.Workdir) -> None:
    """Makes a layer with the directory, also where it exists; only `/` needs none."""
    path = draft.expand(instruction.argument, instruction)
    if not draft.absolute_workdir and not imagepaths.is_absolute(path, draft.platform.os):
        message = f"Relative workdir {quote(path)} can have unexpected results if the base image changes"
        draft.shared.linter.found("WorkdirRelativePath", message, instruction.location)
    draft.absolute_workdir = True
    directory = enter(draft, path)
    if directory == "/":
        draft.commit(f"WORKDIR {directory}")
        return
    epoch = draft.shared.options.epoch
    shown = draft.shown_command(instruction.text, draft.shared.lexer, draft.env)
    made = mkdir(
        directory,
        parents=True,
        owner=draft.owner(draft.config.user),
        timestamp=KEEP_TIME if epoch is None else epoch * 10**9,
    )
    draft.state = draft.state.file(made, name=draft.step_name(shown), place=draft.place(instruction))
    draft.commit(f"WORKDIR {directory}", layer=True)


def enter(draft: Draft, path: str) -> str:
    """Make `path` the directory of the stage; where that is."""
    directory = imagepaths.work_directory(draft.config.working_dir, path, draft.platform.os)
    shown = imagepaths.in_config(directory, draft.platform.os)
    draft.configure(replace(draft.config, working_dir=shown))
    draft.state = draft.state.with_dir(directory)
    return directory
