"""The stages of a Dockerfile as a graph: which is built on which, which takes files from which, what is reachable.

Images that are not stages (`COPY --from=busybox`) become implicit stages, so that there is one kind of node. What a
stage is based on, an image or a named context, is filled in from outside (`Stage.loaded`); after that, ONBUILD
triggers may bring new stages, so whoever fills in asks again until nothing is pending. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from buildengine.errors import Location, ParseError, UserError
from buildengine.platform import Platform
from buildengine.values import dataclass
from frontends.dockerfile import instructions as ins
from frontends.dockerfile import lines, parse
from frontends.dockerfile.contextloading import SCRATCH, Loaded
from frontends.dockerfile.contexts import NamedContext
from frontends.dockerfile.suggest import did_you_mean
from frontends.dockerfile.words import Lexer

_COUNTED = (ins.Add, ins.Copy, ins.Run, ins.Workdir)  # what makes a layer, and so is a step that users see


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An instruction of a stage, and the stages that it takes files from (None: the build context)."""

    instruction: ins.Instruction
    sources: tuple[Stage | None, ...] = ()
    on_build: bool = False


@dataclass(slots=True, eq=False, kw_only=True)
class Stage:
    """`name` is lower-case, "" for a nameless or an implicit stage; `label` is what users see.

    `used` are the paths that anyone takes from what the stage starts from: a context loads no more. `unset` is what to
    say of variables in its image's name that have no value, should that be no name.
    """

    image: str
    location: Location
    instruction: ins.From | None = None
    name: str = ""
    label: str = ""
    platform: Platform | None = None
    base: Stage | None = None
    context: NamedContext | None = None
    steps: tuple[Step, ...] = ()
    needs: dict[Stage, ins.Instruction]
    used: set[str]
    total: int = 0
    ignore_cache: bool = False
    loaded: Loaded | None = None
    triggers_read: bool = False
    unset: str = ""

    @property
    def implicit(self) -> bool:
        return self.instruction is None

    def step_name(self, number: int, text: str, *, platform: str = "", on_build: bool = False) -> str:
        """`[stage n/m] RUN ...`; an implicit stage has no steps to count."""
        if self.total == 0:
            return text
        total = str(self.total)
        where = " ".join(part for part in (platform, self.label, f"{number:{len(total)}d}/{total}") if part)
        return f"[{where}] {'ONBUILD ' if on_build else ''}{text}"


class Graph:
    """All stages in the order of the file, implicit ones behind."""

    def __init__(self, lexer: Lexer) -> None:
        self.lexer = lexer
        self.stages: list[Stage] = []
        self.written = 0  # how many of them the file has
        self._triggers_left = parse.MOST
        self._by_name: dict[str, Stage] = {}

    def add(self, stage: Stage) -> None:
        if stage.context is None:
            stage.base = self._by_name.get(stage.image)  # in this very case: `FROM Base` is an image
            stage.used = stage.base.used if stage.base else stage.used
        self.stages.append(stage)
        if stage.name:
            self._by_name[stage.name] = stage

    def count(self, stage: Stage) -> None:
        """Set how many steps the stage's progress counts to: pulling the image, and what makes layers."""
        pulls = stage.image != SCRATCH and stage.base is None
        stage.total = pulls + sum(isinstance(step.instruction, _COUNTED) for step in stage.steps)

    def find(self, name: str) -> Stage | None:
        return self._by_name.get(name.lower())

    @property
    def names(self) -> list[str]:
        return [stage.label for stage in self.stages if stage.label]

    def target(self, name: str) -> Stage:
        """Raises UserError when no stage has this name."""
        found = self.find(name)
        if found is None:
            known = [stage.name for stage in self.stages if stage.name]
            hint = f"stages are {', '.join(known)}" if known else "no stage has a name: write FROM image AS name"
            raise UserError(f'target stage "{name}" could not be found{did_you_mean(name, self.names)}', hint=hint)
        return found

    def link(self) -> None:
        """Find what each instruction takes files from. Raises ParseError."""
        self.written = len(self.stages)
        for stage in tuple(self.stages):
            instructions = [step.instruction for step in stage.steps]
            stage.steps = tuple([self._step(stage, instruction) for instruction in instructions])
        self._check_circles()
        if len(self.stages) == 1 and not any(_has_mounts(step.instruction) for step in self.stages[0].steps):
            self.stages[0].label = ""

    def _step(self, stage: Stage, instruction: ins.Instruction, on_build: bool = False) -> Step:
        try:
            sources = self._sources(instruction)
        except ParseError as error:
            raise error.located(instruction.location) from None
        for source in sources:
            if source is not None:
                stage.needs[source] = instruction
                if source.implicit:
                    self.add(source)
        return Step(instruction=instruction, sources=sources, on_build=on_build)

    def _sources(self, instruction: ins.Instruction) -> tuple[Stage | None, ...]:
        match instruction:
            case ins.Copy(source_stage=name) if name:
                return (self._copy_source(name, instruction),)
            case ins.Run():
                return tuple([self._mount_source(mount, instruction) for mount in instruction.mounts])
        return ()

    def _copy_source(self, name: str, instruction: ins.Instruction) -> Stage:
        if self.lexer.expand(name, {}) != name:
            raise ParseError(
                "variable expansion is not supported for --from, define a new stage with FROM using ARG from global "
                "scope as a workaround",
                hint="write FROM ${IMAGE} AS name above, and --from=name here",
            )
        if re.fullmatch("[+-]?[0-9]+", name):
            index = int(name[:10])
            if not 0 <= index < self.written:
                raise ParseError(f"invalid stage index {name}", hint=f"there are stages 0 to {self.written - 1}")
            return self.stages[index]
        return self.find(name) or self._implicit(name, instruction.location)

    def _mount_source(self, mount: ins.RawMount, instruction: ins.Instruction) -> Stage | None:
        if not mount.source_stage:
            return None
        return self.find(mount.source_stage) or self._implicit(mount.source_stage, instruction.location)

    def _implicit(self, image: str, location: Location) -> Stage:
        return Stage(image=image, location=location, needs={}, used=set())

    def _check_circles(self) -> None:
        """COPY --from and --mount from= must not lead back. Raises ParseError with every instruction of the circle."""
        done: set[Stage] = set()
        for start in self.stages:
            path: dict[Stage, ins.Instruction] = {}
            pending = [(start, iter(start.needs.items()))] if start not in done else []
            while pending:
                stage, needs = pending[-1]
                step = next(needs, None)
                if step is None:
                    done.add(stage)
                    path.pop(stage, None)
                    pending.pop()
                    continue
                path[stage] = step[1]
                if step[0] in path:
                    raise _circle(start, list(path.values()))
                if step[0] not in done:
                    pending.append((step[0], iter(step[0].needs.items())))

    # --- reachability and triggers ------------------------------------------------------------------------

    def reachable(self, *targets: Stage) -> list[Stage]:
        """What the targets are made of, in the order of `stages`."""
        found = set(targets)
        pending = list(targets)
        while pending:
            stage = pending.pop()
            for other in (*stage.needs, *([stage.base] if stage.base else [])):
                if other not in found:
                    found.add(other)
                    pending.append(other)
        return [stage for stage in self.stages if stage in found]

    def pending(self, *targets: Stage) -> list[Stage]:
        """The reachable stages whose image or context has to be loaded."""
        return [stage for stage in self.reachable(*targets) if stage.base is None and stage.loaded is None]

    def read_triggers(self, *targets: Stage) -> bool:
        """Put the ONBUILD triggers of what a stage is based on in front of its own instructions, once.

        Whether there was a stage to look at: then there may be new ones.
        """
        unread = [s for s in self.reachable(*targets) if not (s.triggers_read or s.implicit or s.context)]
        for stage in unread:
            stage.triggers_read = True
            triggers = tuple(self._triggers(stage))
            self._count_triggers(stage, triggers)
            stage.steps = triggers + stage.steps
            stage.total += len(triggers)
        return bool(unread)

    def _count_triggers(self, stage: Stage, triggers: Sequence[Step]) -> None:
        """n triggers run in each of m stages: that is bounded as what is written is, part by part."""
        self._triggers_left -= sum(parse.parts(step.instruction) for step in triggers)
        if self._triggers_left < 0:
            raise ParseError(
                f"ONBUILD triggers bring more than {parse.MOST} instructions and sources to the stages of a file",
                hint="write fewer triggers, or build fewer stages on the one that has them",
                locations=(stage.location,),
            )

    def _triggers(self, stage: Stage) -> Iterable[Step]:
        for text in _trigger_texts(stage):
            try:
                yield self._step(stage, _trigger(text, stage, self.lexer.escape), on_build=True)
            except ParseError as error:
                hint = error.hint or f"the trigger is: {text}"
                raise ParseError(error.message, hint=hint, locations=(stage.location,)) from None


def _has_mounts(instruction: ins.Instruction) -> bool:
    """BuildKit counts what is mounted as a stage of its own, the context as well."""
    return isinstance(instruction, ins.Run) and bool(instruction.mounts)


def _circle(start: Stage, instructions: Sequence[ins.Instruction]) -> ParseError:
    error = ParseError(
        f"circular dependency detected on stage: {start.label}",
        hint="a stage cannot take files from one that is made of it",
    )
    error.locations = tuple(dict.fromkeys(i.location for i in instructions))
    return error


def _trigger_texts(stage: Stage) -> tuple[str, ...]:
    if stage.base is not None:
        return tuple([s.instruction.argument for s in stage.base.steps if isinstance(s.instruction, ins.OnBuild)])
    return stage.loaded.image.config.on_build if stage.loaded else ()


def _trigger(text: str, stage: Stage, escape: str) -> ins.Instruction:
    """The instruction of an ONBUILD trigger; it stands where the stage's FROM does."""
    source = lines.SourceFile(filename="ONBUILD", data=text.encode("utf-8", "surrogateescape"))
    found = lines.split(source)
    if len(found.lines) != 1:
        raise ParseError("onbuild trigger should be a single expression")
    instruction = parse.instruction(found.lines[0], found.escape)
    if isinstance(instruction, ins.From | ins.OnBuild):
        raise ParseError(f"{instruction.name} isn't allowed as an ONBUILD trigger")
    own = stage.instruction
    if own is None:
        return instruction
    there = replace(
        instruction.line, source=own.line.source, first=own.line.first, last=own.line.last, pieces=own.line.pieces[:1]
    )
    return replace(instruction, line=there)


# --- from the instructions of a file ------------------------------------------------------------------------


def group(instructions: Sequence[ins.Instruction]) -> tuple[list[ins.Arg], list[list[ins.Instruction]]]:
    """The ARGs before the first FROM, and each FROM with what follows it. Raises ParseError."""
    declared: list[ins.Arg] = []
    stages: list[list[ins.Instruction]] = []
    for instruction in instructions:
        if isinstance(instruction, ins.From):
            stages.append([instruction])
        elif stages:
            stages[-1].append(instruction)
        elif isinstance(instruction, ins.Arg):
            declared.append(instruction)
        else:
            raise ParseError(
                "no build stage in current context",
                hint=f"FROM must come first; only ARG may stand before it, not {instruction.name}",
                locations=(instruction.location,),
            )
    if not stages:
        raise ParseError(
            "dockerfile contains no stages to build",
            hint="a Dockerfile begins with FROM",
            locations=(instructions[-1].location,) if instructions else (),
        )
    return declared, stages
