"""One step as it is written down: everything that decides its result, in words that can be shown."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from blake3 import blake3

from buildengine.values import dataclass
from solver.steps import Fate

Facts = Mapping[str, str]
"""What an operation says, by a name: `command`, `env HOME`, `mount /cache`. What two have alike is alike in both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInput:
    """`step` is a position among the steps of its build, -1 for none of them. `files` is the name of the list of what
    was read of a user's directory; `tree` the layers of what counts by its content, as far as there were any.
    """

    step: int = -1
    keys: tuple[str, ...] = ()
    content: str | None = None
    files: str = ""
    tree: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """`kind` is exec, file, image, local, http, git, merge, diff, build. `pin` is what a source was at that moment.

    `op` is the digest of the operation in its key; "" when nobody asked for that.
    """

    vertex: str
    name: str
    kind: str
    facts: Facts
    fate: Fate
    op: str = ""
    pin: str = ""
    keys: tuple[str, ...] = ()
    inputs: tuple[StepInput, ...] = ()

    @property
    def likeness(self) -> str:
        """Steps with the same say the same, whatever they are made from."""
        document = json.dumps([self.kind, dict(self.facts)], sort_keys=True)
        return blake3(document.encode("utf-8", "surrogateescape")).hexdigest(16)

    @property
    def is_part(self) -> bool:
        """The frontend's own: a text that a Dockerfile holds. What is different about it is so about its user."""
        return self.kind == "file" and self.name.startswith("[internal] ")

    @property
    def core(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """What stays of a step that is for another platform or gets other variables."""
        passing = ("env ", "platform")
        return self.kind, tuple([(name, value) for name, value in self.facts.items() if not name.startswith(passing)])

    @property
    def text(self) -> str:
        """Its name without the place in the build: `RUN make` of `[2/3] RUN make`."""
        place, _, rest = self.name.partition("] ")
        return rest if place.startswith("[") and rest else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """The steps of one build, inputs before users. `label` is what people call it; `arguments` are the
    values that were given to it, those of secrets as digests."""

    label: str
    steps: tuple[Step, ...]
    arguments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Today:
    """What is only known of a step of this build. `asked`: the flag that has it ignore the cache, "" for none.

    `made` is when its record was made, None where none stood for it; `was_lost`: there was one whose result was gone.
    """

    asked: str = ""
    made: float | None = None
    is_imported: bool = False
    was_lost: bool = False


def encode(build: Build) -> bytes:
    document = {
        "label": build.label,
        "arguments": dict(build.arguments),
        "steps": [
            [
                step.vertex,
                step.name,
                step.kind,
                dict(step.facts),
                step.fate.value,
                step.op,
                step.pin,
                step.keys,
                [[one.step, one.keys, one.content, one.files, one.tree] for one in step.inputs],
            ]
            for step in build.steps
        ],
    }
    return zlib.compress(json.dumps(document, separators=(",", ":")).encode("ascii"), 1)


def decode(data: bytes) -> Build | None:
    """None for what this version did not write."""
    try:
        document = json.loads(zlib.decompress(data))
        return Build(
            label=document["label"],
            arguments=dict(document["arguments"]),
            steps=tuple([_step(row) for row in document["steps"]]),
        )
    except (zlib.error, ValueError, KeyError, TypeError):
        return None


def _step(row: Sequence[Any]) -> Step:
    vertex, name, kind, facts, fate, op, pin, keys, inputs = row
    return Step(
        vertex=vertex,
        name=name,
        kind=kind,
        facts=facts,
        fate=Fate(fate),
        op=op,
        pin=pin,
        keys=tuple(keys),
        inputs=tuple(
            [
                StepInput(step=step, keys=tuple(of), content=content, files=files, tree=tuple(tree))
                for step, of, content, files, tree in inputs
            ]
        ),
    )
