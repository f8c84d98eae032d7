"""RUN: the command in its three forms, its mounts, and how it is called. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from buildengine.values import dataclass
from frontends.dockerfile import instructions as ins
from frontends.dockerfile.convert import mounting
from frontends.dockerfile.convert.draft import COMMAND, Draft, with_shell
from frontends.dockerfile.lines import Heredoc, heredoc
from llb.actions import mkfile
from llb.mounts import AnyMount, Bind, Secret, Ssh, Tmpfs
from llb.ops import CDIDevice, NetMode, SecurityMode
from llb.state import scratch

_PIPES = "/dev/pipes/"  # where the script of a RUN heredoc with a shebang is mounted
_NETWORKS = {"default": None, "none": NetMode.NONE, "host": NetMode.HOST}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Command:
    argv: tuple[str, ...]
    shell: bool
    shown: str
    mounts: tuple[AnyMount, ...] = ()


def run(draft: Draft, instruction: ins.Run, sources: Sequence[Draft | None]) -> None:
    wanted = mounting.read(draft, instruction)
    command = _command(draft, instruction)
    argv = with_shell(draft.image, command.argv) if command.shell else command.argv
    mounts = [*command.mounts, *[mounting.mount(draft, m, s) for m, s in zip(wanted, sources, strict=True)]]
    draft.asked += [(mount, instruction.location) for mount in mounts if isinstance(mount, Secret | Ssh)]
    if draft.shared.options.shm_size > 0:
        mounts.append(Tmpfs(target="/dev/shm", size=draft.shared.options.shm_size))
    lexer = replace(draft.shared.lexer, keep_quotes=True, keep_unset=True)
    shown = draft.shown_command(command.shown, lexer, mounting.masked_env(draft, wanted))
    env = draft.env
    draft.carry()
    draft.stage.used.add("/")  # a command may read any file
    draft.state = draft.state.run(
        argv,
        mounts=mounts,
        network=_NETWORKS[instruction.network],
        security=SecurityMode.INSECURE if instruction.security == "insecure" else SecurityMode.SANDBOX,
        proxy=draft.shared.options.proxy,
        devices=[CDIDevice(name=d.name, optional=not d.required) for d in instruction.devices],
        name=draft.step_name(shown),
        description={COMMAND: instruction.text},
        ignore_cache=draft.stage.ignore_cache,
        place=draft.place(instruction),
    ).root
    draft.commit("RUN " + _history_text(draft, argv, env), layer=True, suffix=" # buildkit")


def _command(draft: Draft, instruction: ins.Run) -> _Command:
    heredocs, text = instruction.line.heredocs, instruction.text
    if not heredocs or not instruction.shell:
        return _Command(argv=instruction.argv, shell=instruction.shell, shown=text)
    first = heredocs[0]
    if heredoc(instruction.argv[0]) is None:  # `RUN program <<EOF`: the shell knows what to do
        whole = instruction.argv[0] + "".join(f"\n{h.body}{h.name}" for h in heredocs)
        return _Command(argv=(whole,), shell=True, shown=text)
    shown = f"{text} ({_summary(first)})"
    if draft.image.os != "windows" and first.body.startswith("#!"):
        script = scratch().file(
            mkfile(first.name, first.content.encode(), mode=0o755),
            name="[internal] preparing inline document",
            place=draft.place(instruction),
        )
        pipes = Bind(target=_PIPES, source=script, selector="/", readonly=True)
        return _Command(argv=(_PIPES + first.name,), shell=True, shown=shown, mounts=(pipes,))
    return _Command(argv=(first.content,), shell=True, shown=shown)


def _summary(document: Heredoc) -> str:
    first, *more = document.body.strip().split("\n")
    return first.rstrip("\r") + ("..." if more else "")


def _history_text(draft: Draft, argv: Sequence[str], env: Mapping[str, str]) -> str:
    """The command behind the ARGs that it could see: `|1 VERSION=2 /bin/sh -c ...`."""
    seen = {name: env.get(name, value or "") for name, value in draft.args.items()}
    before = [f"|{len(seen)}", *[f"{key}={value}" for key, value in seen.items()]] if seen else []
    return " ".join([*before, *argv])
