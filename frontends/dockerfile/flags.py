"""The `--flags` of an instruction: which there are, of what kind, and what was given. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

from buildengine.errors import ParseError
from buildengine.values import dataclass
from frontends.dockerfile.suggest import also_near, did_you_mean


class Kind(Enum):
    SWITCH = "switch"  # --link, --link=false
    VALUE = "value"  # --from=x
    VALUES = "values"  # --mount=x, again and again


_TRANSFER = {"chown": Kind.VALUE, "chmod": Kind.VALUE, "link": Kind.SWITCH, "exclude": Kind.VALUES}

KNOWN: Mapping[str, Mapping[str, Kind]] = MappingProxyType({
    "FROM": {"platform": Kind.VALUE},
    "COPY": {**_TRANSFER, "from": Kind.VALUE, "parents": Kind.SWITCH},
    "ADD": {**_TRANSFER, "checksum": Kind.VALUE, "keep-git-dir": Kind.SWITCH, "unpack": Kind.SWITCH},
    "RUN": {"mount": Kind.VALUES, "network": Kind.VALUE, "security": Kind.VALUE, "device": Kind.VALUES},
    "HEALTHCHECK": dict.fromkeys(("interval", "timeout", "start-period", "start-interval", "retries"), Kind.VALUE),
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What was given, by name; a switch is `true` or `false`."""

    given: Mapping[str, tuple[str, ...]]

    def value(self, name: str, default: str = "") -> str:
        return self.given[name][0] if name in self.given else default

    def values(self, name: str) -> tuple[str, ...]:
        return self.given.get(name, ())

    def switch(self, name: str) -> bool | None:
        """None when it was not given."""
        return self.value(name) == "true" if name in self.given else None


class Reader:
    """Takes the flags of one instruction, quotes gone, one after another."""

    def __init__(self, instruction: str) -> None:
        self.instruction = instruction
        self.known = KNOWN.get(instruction, {})
        self.given: dict[str, tuple[str, ...]] = {}

    def take(self, word: str) -> None:
        """Raises ParseError: unknown, repeated, without a value."""
        flag, equals, value = word.partition("=")
        name = flag[2:]
        kind = self.known.get(name)
        if kind is None:
            suggestion = did_you_mean(name, self.known)
            hint = also_near(name, self.known, prefix="--") + _takes(self.instruction, self.known)
            raise ParseError(f"unknown flag: {flag}{suggestion}", hint=hint)
        if name in self.given and kind is not Kind.VALUES:
            raise ParseError(f"duplicate flag specified: {flag}", hint="give it once")
        if kind is Kind.SWITCH:
            value = _switch(flag, equals, value)
        elif not equals:
            raise ParseError(f"missing a value on flag: {flag}", hint=f"write {flag}=...")
        self.given[name] = (*self.given.get(name, ()), value)

    def finish(self) -> Flags:
        return Flags(given=self.given)


def _switch(flag: str, equals: str, value: str) -> str:
    if equals and not value:
        raise ParseError(f"missing a value on flag: {flag}", hint=f"write {flag}, {flag}=true or {flag}=false")
    if value.lower() not in ("", "true", "false"):
        raise ParseError(f"expecting boolean value for flag {flag}, not: {value}", hint=f"write {flag} or {flag}=false")
    return value.lower() or "true"


def _takes(instruction: str, known: Mapping[str, Kind]) -> str:
    if not known:
        return f"{instruction} takes no flags; write -- before an argument that begins with --"
    return f"{instruction} takes {', '.join(f'--{name}' for name in known)}"
