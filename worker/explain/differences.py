"""What differs between a step and the one it is compared with, apart from its inputs: each with its cause, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field

from buildengine.builder import SESSION_HOST
from buildengine.events import Cause
from buildengine.values import dataclass
from worker.explain import facts as names
from worker.explain.secrecy import HIDDEN, shown, sounds_secret
from worker.explain.step import Step
from worker.explain.texts import excerpts

_UNSET = "unset"
_DIGEST = "blake3:"
_IMAGE = "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """`text` says it in one line, `details` in further ones."""

    cause: Cause
    text: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """Names of variables, by what declares them where the build is written; of arguments the defaults."""

    arguments: Mapping[str, str] = field(default_factory=dict)
    environment: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Variables:
    """`now` and `then` are the build arguments that were given, with what may be known of their values."""

    declared: Declared = Declared()
    now: Mapping[str, str] = field(default_factory=dict)
    then: Mapping[str, str] = field(default_factory=dict)

    def is_argument(self, name: str) -> bool:
        if name in self.now or name in self.then:
            return True
        return name in self.declared.arguments and name not in self.declared.environment

    def value_then(self, name: str) -> str:
        """What was given, or else the default of today."""
        return self.then.get(name) or self.declared.arguments.get(name, "")

    def value_now(self, name: str) -> str:
        return self.now.get(name) or self.declared.arguments.get(name, "")

    def behind(self, was: str, now: str) -> str:
        """The argument whose new value in the place of its old one makes the one text of the other; "" for none."""
        for name in sorted({*self.now, *self.then}):
            old, new = self.value_then(name), self.value_now(name)
            if old and old != new and not old.startswith(HIDDEN) and was.replace(old, new) == now:
                return name
        return ""


def differences(new: Step, old: Step, variables: Variables) -> list[Difference]:
    """What weighs most comes first."""
    found: list[Difference] = []
    for name in dict.fromkeys((*new.facts, *old.facts)):
        was, now = old.facts.get(name), new.facts.get(name)
        if was != now:
            found += _difference(new, name, was, now, variables)
    found += _moved(new, old)
    if not found and new.op and old.op and new.op != old.op:
        found.append(Difference(cause=Cause.OPTION, text="its definition changed in a part that is not shown"))
    return sorted(dict.fromkeys(found), key=lambda each: _ORDER.index(each.cause))


_ORDER = (
    Cause.PLATFORM, Cause.BASE, Cause.SOURCE, Cause.COMMAND, Cause.ARGUMENT, Cause.ENVIRONMENT, Cause.OPTION,
    Cause.FILES, Cause.IGNORE_FILE,
)  # fmt: skip


def _difference(new: Step, name: str, was: str | None, now: str | None, variables: Variables) -> Iterator[Difference]:
    if new.kind == "local":  # which part of a directory is seen: what that means for the files, their list says
        return
    is_given = name.startswith(names.ENV) and variables.is_argument(name.removeprefix(names.ENV))
    argument = "" if is_given else variables.behind(was or "", now or "")
    if argument:
        details = _values(variables.value_then(argument), variables.value_now(argument))
        yield Difference(cause=Cause.ARGUMENT, text=f"the build argument {argument} changed", details=details)
        return
    if name == names.PLATFORM:
        yield _changed(Cause.PLATFORM, "the platform changed", was, now)
    elif name == names.COMMAND:
        yield _changed(Cause.COMMAND, "the command was edited", was, now)
    elif name == names.HIDDEN_PART:
        yield Difference(cause=Cause.COMMAND, text="the command was edited, in a part that is not shown")
    elif name.startswith(names.ENV):
        yield _variable(name.removeprefix(names.ENV), was, now, variables)
    elif name.startswith(names.MOUNT):
        yield _mount(name.removeprefix(names.MOUNT), was, now)
    elif new.kind == "image" and name == _IMAGE:
        yield _changed(Cause.BASE, "another base image is named", was, now)
    elif name.endswith("content"):
        yield _changed(Cause.COMMAND, "the text in the Dockerfile was edited", was, now)
    elif name != "words of the command":
        cause = Cause.SOURCE if new.kind in ("http", "git") else Cause.OPTION
        yield _changed(cause, f"{_article(name)} changed", was, now)


def _article(name: str) -> str:
    return name if name[:1].isdigit() else f"the {name}"


def _variable(name: str, was: str | None, now: str | None, variables: Variables) -> Difference:
    argument = variables.is_argument(name)
    cause, what = (
        (Cause.ARGUMENT, "the build argument") if argument else (Cause.ENVIRONMENT, "the environment variable")
    )
    if was is None:
        text = f"{what} {name} is new"
    elif now is None:
        text = f"{what} {name} is gone"
    else:
        text = f"{what} {name} changed"
    if sounds_secret(name) or any(each is not None and each.startswith(HIDDEN) for each in (was, now)):
        return Difference(cause=cause, text=text, details=("its value is not shown: the name sounds like a secret's",))
    return Difference(cause=cause, text=text, details=_values(was, now))


def _mount(dest: str, was: str | None, now: str | None) -> Difference:
    kind = (now or was or "").partition(",")[0].removeprefix("secret id")
    what = f"the {kind.strip() or 'secret'} mount at {dest}"
    if was is None:
        return Difference(cause=Cause.OPTION, text=f"{what} is new", details=(f"now  {now}",))
    if now is None:
        return Difference(cause=Cause.OPTION, text=f"{what} is gone", details=(f"was  {was}",))
    return _changed(Cause.OPTION, f"{what} changed", was, now)


def _moved(new: Step, old: Step) -> Iterator[Difference]:
    """A source that is called the same and is another one now."""
    if new.pin == old.pin or not (new.pin and old.pin) or new.kind == "local":
        return
    details = _values(old.pin, new.pin)
    same_platform = new.facts.get(names.PLATFORM) == old.facts.get(names.PLATFORM)
    if new.kind == _IMAGE:
        if new.facts.get(_IMAGE) == old.facts.get(_IMAGE) and same_platform:
            yield Difference(
                cause=Cause.BASE,
                text=f"the base image moved: {new.facts.get(_IMAGE, '')} is another one",
                details=details,
            )
    elif new.kind == "git":
        yield Difference(cause=Cause.SOURCE, text="the repository moved on to another commit", details=details)
    elif new.facts.get("address") == SESSION_HOST:
        yield Difference(cause=Cause.SOURCE, text="the archive on standard input is another one", details=details)
    else:
        yield Difference(cause=Cause.SOURCE, text="the URL holds something else", details=details)


def _changed(cause: Cause, text: str, was: str | None, now: str | None) -> Difference:
    return Difference(cause=cause, text=text, details=_values(was, now))


def _values(was: str | None, now: str | None) -> tuple[str, ...]:
    if any(value is not None and value.startswith(_DIGEST) for value in (was, now)):
        return ()
    before, after = excerpts("" if was is None else shown(was), "" if now is None else shown(now))
    return (
        f"was  {before if was is not None else _UNSET}",
        f"now  {after if now is not None else _UNSET}",
    )
