"""Build files that mean harm, by what they try: the file, and what its user is told of it.

`RAW` is a module beside each of them: the engine's end of the protocol without the client that an author is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import dedent

RAW = """
import os, socket, struct
from buildengine.api import frames

def engine():
    \"\"\"The socket to the engine: the first that this process has.\"\"\"
    for number in range(3, 64):
        try:
            found = socket.socket(fileno=os.dup(number))
        except OSError:
            continue
        if found.family == socket.AF_UNIX:
            found.setblocking(True)
            return found

def send(method, message=b"", number=7):
    engine().sendall(frames.encode(frames.call(number, method, message)))

def ask(method, message=b""):
    \"\"\"One call, and the bytes that come for it.\"\"\"
    there = engine()
    there.sendall(frames.encode(frames.call(999999, method, message)))
    reader = frames.Reader()
    while True:
        for frame in reader.feed(there.recv(1 << 20)):
            if frame.number == 999999:
                return frame
"""


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """`said` stands in the error. `patient`: it takes all the time that it is given."""

    text: str
    said: str
    patient: bool = False


def hostile(text: str, said: str, *, patient: bool = False) -> Hostile:
    return Hostile(text=dedent(text).lstrip("\n"), said=said, patient=patient)


HOSTILE = {
    # processes, time, memory, output
    "fork bomb": hostile(
        """
        import os
        while True:
            os.fork()
        """,
        "Resource temporarily unavailable",
    ),
    "patient fork bomb": hostile(
        """
        import os
        while True:
            try:
                os.fork()
            except OSError:
                pass
        """,
        "has kept the engine waiting",
        patient=True,
    ),
    "endless loop": hostile(
        """
        while True:
            pass
        """,
        "has kept the engine waiting",
        patient=True,
    ),
    "sleep": hostile(
        """
        import llb, os, sys
        async def build(ctx):
            import trio
            await trio.sleep_forever()
        """,
        "has kept the engine",
        patient=True,
    ),
    "deaf to signals": hostile(
        """
        import llb, os, sys
        async def build(ctx):
            import signal, time
            for number in range(1, 65):
                try:
                    signal.signal(number, signal.SIG_IGN)
                except (OSError, ValueError):
                    pass
            while True:
                time.sleep(1)
        """,
        "has kept the engine waiting",
        patient=True,
    ),
    "endless output": hostile(
        """
        while True:
            print('x' * 1000)
        """,
        "has printed more than 4MiB",
    ),
    "memory": hostile(
        """
        import llb, os, sys
        async def build(ctx):
            held = bytearray(8 << 30)
        """,
        "MemoryError",
    ),
    "memory of many": hostile(
        """
        import os, time
        for _ in range(20):
            if not os.fork():
                held = b'x' * (100 << 20)
                time.sleep(60)
        time.sleep(60)
        """,
        "",
        patient=True,
    ),
    "disk": hostile(
        """
        with open('/tmp/x', 'wb') as file:
            while True:
                file.write(bytes(1 << 20))
        """,
        "No space left on device",
    ),
    "deep recursion": hostile(
        """
        import llb, os, sys
        async def build(ctx):
            def f(): f()
            f()
        """,
        "RecursionError",
    ),
    "a crash": hostile(
        """
        import ctypes
        ctypes.string_at(0)
        """,
        "killed by SIGSEGV",
    ),
    # this host
    "files of the host": hostile(
        """
        import llb, os, sys
        async def build(ctx):
            names = ['/etc/passwd', '/etc/shadow', '/etc/hostname', '/root/.ssh', '/usr/bin/env', '/var/lib', '/boot']
            found = [p for p in [*names, *[f'/proc/1/root{p}' for p in names]] if os.path.exists(p)]
            raise OSError(f'found {found}, may write {[p for p in sys.path if os.access(p, os.W_OK)]}')
        """,
        "OSError: found [], may write []",
    ),
    "other processes": hostile(
        """
        import llb, os, sys
        async def build(ctx):
            seen = [p for p in os.listdir('/proc') if p.isdigit()]
            import ctypes
            traced = [p for p in (1, os.getppid()) if ctypes.CDLL(None).ptrace(16, p, 0, 0) == 0]
            raise OSError(f'seen {seen}, traced {traced}, user {os.getuid()} {os.getgid()} {os.getgroups()}')
        """,
        "OSError: seen ['1'], traced [], user 65534 65534 []",
    ),
    "killing its parent": hostile(
        """
        import llb, os, sys
        async def build(ctx):
            for pid in (os.getppid(), -1, 2, 3):
                os.kill(pid, 9) if pid else None
            raise OSError('alive')
        """,
        "No such process",
    ),
    "network": hostile(
        """
        import llb, os, sys
        async def build(ctx):
            import socket
            socket.create_connection(('192.0.2.1', 80), timeout=5)
        """,
        "Network is unreachable",
    ),
    "privileges": hostile(
        """
        import llb, os, sys
        async def build(ctx):
            import ctypes
            libc = ctypes.CDLL(None)
            got = [name for name, flag in (('user', 0x10000000), ('mount', 0x20000)) if libc.unshare(flag) == 0]
            lines = open('/proc/self/status').read().splitlines()
            status = dict(line.split(':\\t') for line in lines if ':\\t' in line)
            caps = {status[name].strip('0') for name in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb')}
            raise OSError(f'{got} {caps} {status["NoNewPrivs"]} {libc.mount(b"x", b"/tmp", b"tmpfs", 0, None)}')
        """,
        "OSError: [] {''} 1 -1",
    ),
    "a link to the host": hostile(
        """
        import llb, os, sys
        async def build(ctx):
            print(await ctx.here.read('link'))
        """,
        "No such file or directory",
    ),
    "modules in our place": hostile(
        """
        import cache, worker, trio, frontends, os
        found = [m.__file__ for m in (cache, worker, trio, frontends)]
        raise OSError([name for name in found if name.startswith('/build')])
        """,
        "OSError: []",
    ),
    # the protocol
    "half a frame": hostile(
        """
        import raw, os
        raw.engine().send(b'\\0\\0')
        os._exit(0)
        """,
        "middle of a message",
    ),
    "a frame that never ends": hostile(
        """
        import raw, time
        raw.engine().send(b'\\0\\1\\0\\0\\0')
        time.sleep(60)
        """,
        "has kept the engine waiting",
        patient=True,
    ),
    "a huge frame": hostile(
        """
        import raw, time
        raw.engine().send(b'\\x7f' * 64)
        time.sleep(60)
        """,
        "a frame says that",
    ),
    "no protocol": hostile(
        """
        import raw, time
        raw.engine().send(b'\\0\\0\\0\\7' + b'GET / HTTP/1.1')
        time.sleep(60)
        """,
        "unknown kind",
    ),
    "questions": hostile(
        """
        import raw
        there, reader = raw.engine(), raw.frames.Reader()
        many = raw.frames.encode(raw.frames.call(1, 'StatFile', b'')) * 16
        while True:
            there.sendall(many)
            answers = 0
            while answers < 16:
                answers += len(list(reader.feed(there.recv(1 << 20))))
        """,
        "more than 10000 questions",
    ),
    "questions without an ear": hostile(
        """
        import raw
        while True:
            raw.send('Ping')
        """,
        "has kept the engine waiting",
        patient=True,
    ),
    "a method that is not there": hostile(
        """
        import raw
        raise OSError(' '.join(raw.ask(name).kind.name for name in ('Prune', 'NewContainer', 'x' * 255)))
        """,
        "OSError: FAILURE FAILURE FAILURE",
    ),
    "closed descriptors": hostile(
        """
        import os
        os.closerange(0, 256)
        """,
        "the process of the build file",
    ),
    "an end without a word": hostile(
        """
        import os
        os._exit(0)
        """,
        "has not said anything",
    ),
    "an end in the middle": hostile(
        """
        import llb, os, sys
        async def build(ctx):
            sys.exit(3)
        """,
        "SystemExit",
    ),
    # results and graphs
    "a forged result": hostile(
        """
        import raw
        from buildengine.api import gateway_pb2 as pb
        raw.ask('Return', pb.ReturnRequest(result=pb.Result(ref=pb.Ref(id='0' * 24))).SerializeToString())
        raise OSError('refused')
        """,
        "OSError: refused",
    ),
    "a result that is none": hostile(
        """
        import raw, os
        from buildengine.api import gateway_pb2 as pb
        raw.ask('Return', pb.ReturnRequest(result=pb.Result(metadata={'refs.platforms': b'[[['})).SerializeToString())
        os._exit(0)
        """,
        "list of platforms cannot be read",
    ),
    "an error that is none": hostile(
        """
        import raw, os
        from google.rpc.status_pb2 import Status
        from buildengine.api import gateway_pb2 as pb
        status = Status(code=2, message='mine')
        status.details.add(type_url='pybuild/errors.Error+json', value=b'[1')
        raw.ask('Return', pb.ReturnRequest(error=status).SerializeToString())
        os._exit(0)
        """,
        "mine",
    ),
    "bytes for a message": hostile(
        """
        import raw
        raise OSError(raw.ask('Solve', b'\\xff' * 100).kind.name)
        """,
        "OSError: FAILURE",
    ),
    "an edge to nowhere": hostile(
        """
        import llb, os, sys
        async def build(ctx):
            from llb.definition import Definition
            from llb import codec
            from llb.ops import Op, Input, MergeOp
            from buildengine.digest import Digest
            edge = Input(digest=Digest('sha256:' + '0' * 64), index=0)
            ops = (codec.encode(Op(inputs=(edge,), payload=MergeOp(inputs=(0,)))), codec.encode(Op(inputs=(edge,))))
            await (await ctx.gateway.solve(Definition(ops=ops))).evaluate()
        """,
        "0000",
    ),
    "a million vertices": hostile(
        """
        import raw
        ops = b'\\x0a\\x04\\x52\\x02\\x08\\x01' * 1000000
        size = bytes([len(ops) & 127 | 128, len(ops) >> 7 & 127 | 128, len(ops) >> 14 & 127 | 128, len(ops) >> 21])
        raise OSError(raw.ask('Solve', b'\\x0a' + size + ops).kind.name)
        """,
        "a definition of the build file has more than 20000 operations",
    ),
    "many graphs": hostile(
        """
        import llb, os, sys
        async def build(ctx):
            from llb.definition import Definition
            definition = llb.image('a').marshal()
            definition = Definition(ops=definition.ops[:1] * 19999 + definition.ops[1:])
            while True:
                await ctx.gateway.solve(definition)
        """,
        "more than 200000 operations together",
    ),
    "a privilege that nobody gave": hostile(
        """
        import llb, os, sys
        async def build(ctx):
            return (await ctx.image('base')).run('id', security=llb.SecurityMode.INSECURE)
        """,
        "security.insecure is not allowed",
    ),
    "itself": hostile(
        """
        import llb, os, sys
        async def build(ctx):
            return await ctx.frontend('python.v0', options={'filename': ctx.options['filename']})
        """,
        "more than 8 frontends run for each other",
    ),
    # what is no build
    "no text": hostile(
        """
        X = '\xe9'
        """,
        "SyntaxError",
    ),
    "a result of another kind": hostile(
        """
        import llb, os, sys
        async def build(ctx):
            return 7
        """,
        "build() returned a int",
    ),
    "an exception that cannot be shown": hostile(
        """
        class Mine(Exception):
            def __str__(self): raise self
        raise Mine
        """,
        "Mine",
    ),
}
