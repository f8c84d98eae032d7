"""EXPOSE: `80`, `53/udp`, `8000-8010/tcp`, and the `[ip:]host:` in front that means nothing here. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from buildengine.errors import ParseError
from frontends.dockerfile import instructions as ins
from frontends.dockerfile.convert.draft import Draft
from frontends.dockerfile.suggest import did_you_mean
from frontends.dockerfile.words import quote

_PROTOCOLS = ("tcp", "udp", "sctp")
_HIGHEST = 65535
_HINT = "write EXPOSE 8080, EXPOSE 53/udp or EXPOSE 8000-8010"


def expose(draft: Draft, instruction: ins.Expose) -> None:
    ports: list[str] = []
    for argument in instruction.arguments:
        for text in draft.shared.lexer.process(argument, draft.env).words:
            found = _ports(draft, instruction, text)
            draft.shared.lexer.budget.expose(len(found), len(draft.config.exposed_ports))
            ports += found
    draft.configure(replace(draft.config, exposed_ports=draft.config.exposed_ports.union(ports)))
    draft.commit(f"EXPOSE [{' '.join(ports)}]")


def _ports(draft: Draft, instruction: ins.Expose, text: str) -> list[str]:
    address, host, container = _split(text)
    port, _, protocol = container.partition("/")
    if not port:
        raise ParseError(f"invalid port: {quote(text)}: no port specified", hint=_HINT)
    if protocol.lower() not in ("", *_PROTOCOLS):
        suggestion = did_you_mean(protocol.lower(), _PROTOCOLS)
        raise ParseError(f"invalid port: {quote(text)}: invalid proto: {protocol}{suggestion}", hint=_HINT)
    _lint(draft, instruction, text, protocol, bool(address or host))
    _check_address(address)
    first, last = _range(port, "containerPort")
    if host:
        low, high = _range(host, "hostPort")
        if first != last and high - low != last - first:
            raise ParseError(f"invalid ranges specified for container and host Ports: {port} and {host}", hint=_HINT)
    return [f"{number}/{protocol.lower() or 'tcp'}" for number in range(first, last + 1)]


def _split(text: str) -> tuple[str, str, str]:
    *before, container = text.split(":")
    return ":".join(before[:-1]), before[-1] if before else "", container


def _lint(draft: Draft, instruction: ins.Expose, text: str, protocol: str, mapped: bool) -> None:
    linter = draft.shared.linter
    if protocol != protocol.lower():
        message = f"Defined protocol '{text}' in EXPOSE instruction should be lowercase"
        linter.found("ExposeProtoCasing", message, instruction.location)
    if mapped:
        message = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{text}'"
        linter.found("ExposeInvalidFormat", message, instruction.location)


def _check_address(address: str) -> None:
    bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    try:
        if bare:
            ipaddress.ip_address(bare)
    except ValueError:
        raise ParseError(f"invalid IP address: {address}", hint=_HINT) from None


def _range(text: str, what: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    numbers = [_number(first), _number(last) if dash else _number(first)]
    if None in numbers or (numbers[1] or 0) < (numbers[0] or 0):
        raise ParseError(f"invalid {what}: {text}", hint=_HINT)
    return numbers[0] or 0, numbers[1] or 0


def _number(text: str) -> int | None:
    digits = text.removeprefix("+")
    number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else _HIGHEST + 1
    return number if number <= _HIGHEST else None
