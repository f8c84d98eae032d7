"""A proxy on loopback in front of a registry, that does to its traffic what networks do. Deterministic by seed.

    async with faulty_proxy(registry.host, seed=7) as proxy:
        ... push to and pull from proxy.host ...
        proxy.seen        every request with what was done to it

What happens to a request depends on the seed, its method, path and range, and how often that was asked for before:
not on the order in which requests arrive. Upload sessions count as one path. A 401 is what a token that ran out gets:
it names the proxy's own `/token`, which gives one to everybody; the registry behind sees no Authorization.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import h11
import trio

CUTS = ("cut request", "cut reply", "no reply", "lost reply")
REFUSALS = ("429", "500", "502", "503", "401")
DELAYS = ("delay", "reorder", "stutter")
FAULTS = CUTS + REFUSALS + DELAYS
"""`lost reply`: the registry did it, nobody is told. `reorder`: waits until another request was answered."""
SHORTENED = "shorten"
"""A reply whose length was made to fit what is left of it. No client can know; only the digest tells."""

_HOP = frozenset({b"connection", b"keep-alive", b"authorization", b"transfer-encoding"})
_WAIT = 0.05
_PIECE = 64 << 10


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`kind` is one of FAULTS, SHORTENED or "" for none; `part` in [0, 1) is where in the body it strikes."""

    kind: str = ""
    part: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Seen:
    method: str
    target: str
    headers: Mapping[str, str]
    fault: Fault


@dataclass
class _Reply:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""


@dataclass
class FaultyProxy:
    """`rate` is the part of requests that meet a fault, `kinds` which ones may."""

    upstream: str
    seed: int
    rate: float = 0.3
    kinds: Sequence[str] = FAULTS
    host: str = ""
    seen: list[Seen] = field(default_factory=list)
    _asked: Counter[str] = field(default_factory=Counter)
    _answered: trio.Event = field(default_factory=trio.Event)

    def fault(self, method: str, target: str, range_: str = "") -> Fault:
        """What happens to the next request of this method, path and range."""
        path = re.sub(r"/uploads/.*", "/uploads/", target.partition("?")[0])
        asked = f"{method} {path} {range_}"
        self._asked[asked] += 1
        dice = random.Random(f"{self.seed} {asked} {self._asked[asked]}")
        if path == "/token" or dice.random() >= self.rate:
            return Fault()
        return Fault(kind=dice.choice(list(self.kinds)), part=dice.random())

    async def connection(self, stream: trio.SocketStream) -> None:
        machine = h11.Connection(h11.SERVER)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError):
            async with stream:
                while await self._exchange(stream, machine):
                    machine.start_next_cycle()

    async def _exchange(self, stream: trio.SocketStream, machine: h11.Connection) -> bool:
        """Answer one request; False when that was the end of the connection."""
        request = await _next_event(stream, machine)
        if not isinstance(request, h11.Request):
            return False
        method, target = request.method.decode(), request.target.decode()
        headers = {name.decode(): value.decode("latin-1") for name, value in request.headers}
        fault = self.fault(method, target, headers.get("range", ""))
        self.seen.append(Seen(method=method, target=target, headers=headers, fault=fault))
        await self._hold(fault)
        if fault.kind == "no reply":
            return False
        if machine.they_are_waiting_for_100_continue:
            await stream.send_all(machine.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
        reply = await self._forward(stream, machine, request, fault)
        if reply is None or fault.kind == "lost reply":
            return False
        whole = await _send(stream, machine, request, reply, fault)
        self._answered.set()
        self._answered = trio.Event()
        return whole and machine.our_state is h11.DONE and machine.their_state is h11.DONE

    async def _hold(self, fault: Fault) -> None:
        if fault.kind == "delay":
            await trio.sleep(fault.part * _WAIT)
        elif fault.kind == "reorder":
            with trio.move_on_after(_WAIT):
                await self._answered.wait()

    async def _forward(
        self, stream: trio.SocketStream, machine: h11.Connection, request: h11.Request, fault: Fault
    ) -> _Reply | None:
        """What the registry answers, or what the proxy says in its place; None when the request was cut."""
        refused = fault.kind in REFUSALS
        if refused or request.target == b"/token" or request.target.startswith(b"/token?"):
            while isinstance(await _next_event(stream, machine), h11.Data):
                pass
            return self._refusal(int(fault.kind)) if refused else _Reply(200, [], b'{"token": "anybody"}')
        host, _, port = self.upstream.rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as behind:
            other = h11.Connection(h11.CLIENT)
            headers = [(name, value) for name, value in request.headers if name not in _HOP]
            length = next((int(value) for name, value in headers if name == b"content-length"), 0)
            if any(name == b"transfer-encoding" for name, _ in request.headers):
                headers.append((b"transfer-encoding", b"chunked"))
            asked = h11.Request(
                method=request.method, target=request.target, headers=[*headers, (b"connection", b"close")]
            )
            await behind.send_all(other.send(asked) or b"")
            passed = 0
            while isinstance(event := await _next_event(stream, machine), h11.Data):
                passed += len(event.data)
                await behind.send_all(other.send(h11.Data(data=bytes(event.data))) or b"")
                if fault.kind == "cut request" and passed >= length * fault.part:
                    return None
            if fault.kind == "cut request":
                return None
            await behind.send_all(other.send(h11.EndOfMessage()) or b"")
            return await _receive(behind, other)

    def _refusal(self, status: int) -> _Reply:
        headers = []
        if status == 401:
            challenge = f'Bearer realm="http://{self.host}/token",service="proxy"'
            headers.append((b"www-authenticate", challenge.encode()))
        return _Reply(status, headers, b'{"errors": [{"code": "FAULT", "message": "the proxy says no"}]}')


@asynccontextmanager
async def faulty_proxy(
    upstream: str, *, seed: int, rate: float = 0.3, kinds: Sequence[str] = FAULTS
) -> AsyncIterator[FaultyProxy]:
    """A proxy in front of the registry at `upstream` (host:port, plain HTTP); it ends with this block."""
    proxy = FaultyProxy(upstream, seed, rate, kinds)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, proxy.connection, 0, host="127.0.0.1"))
        proxy.host = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        yield proxy
        nursery.cancel_scope.cancel()


async def _next_event(stream: trio.SocketStream, machine: h11.Connection) -> object:
    while (event := machine.next_event()) is h11.NEED_DATA:
        machine.receive_data(await stream.receive_some(1 << 18))
    return event


async def _receive(stream: trio.SocketStream, machine: h11.Connection) -> _Reply:
    reply = _Reply(502, [])
    body = bytearray()
    while not isinstance(event := await _next_event(stream, machine), h11.EndOfMessage | h11.ConnectionClosed):
        if isinstance(event, h11.Response):
            reply = _Reply(event.status_code, [pair for pair in event.headers if pair[0] not in _HOP])
        elif isinstance(event, h11.Data):
            body += event.data
    reply.body = bytes(body)
    return reply


async def _send(
    stream: trio.SocketStream, machine: h11.Connection, request: h11.Request, reply: _Reply, fault: Fault
) -> bool:
    """Send the reply, as far as the fault lets it. By hand where promises are broken: h11 refuses to."""
    without_body = request.method == b"HEAD" or reply.status in (204, 304)
    body = b"" if without_body else reply.body
    if fault.kind == SHORTENED:
        body = body[: int(len(body) * fault.part)]
    headers = reply.headers
    if not without_body:
        headers = [pair for pair in headers if pair[0] != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
    response = machine.send(h11.Response(status_code=reply.status, headers=headers)) or b""
    if fault.kind == "cut reply":
        whole = response + body
        await stream.send_all(whole[: int(len(whole) * fault.part)])
        return False
    await stream.send_all(response)
    for start in range(0, len(body), _PIECE if fault.kind == "stutter" else max(1, len(body))):
        piece = body[start : start + _PIECE] if fault.kind == "stutter" else body
        await stream.send_all(machine.send(h11.Data(data=piece)) or b"")
        await trio.lowlevel.checkpoint()
    await stream.send_all(machine.send(h11.EndOfMessage()) or b"")
    return True
