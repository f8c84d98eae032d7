"""LLB: a build as a graph of operations, as values.

The names of the builder (`llb.state`, `llb.sources`) are this package's own, so that a build file needs one import:

>>> import llb
>>> llb.image("busybox").run("echo hello > /greeting").cwd
'/'
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from llb.ops import CacheSharing as CacheSharing
    from llb.ops import NetMode as NetMode
    from llb.ops import SecurityMode as SecurityMode
    from llb.sourcemap import Place as Place
    from llb.sourcemap import SourceFile as SourceFile
    from llb.sources import git as git
    from llb.sources import http as http
    from llb.sources import image as image
    from llb.sources import local as local
    from llb.sources import oci_layout as oci_layout
    from llb.state import Bind as Bind
    from llb.state import Cache as Cache
    from llb.state import ExecState as ExecState
    from llb.state import Secret as Secret
    from llb.state import Ssh as Ssh
    from llb.state import State as State
    from llb.state import Tmpfs as Tmpfs
    from llb.state import copy as copy
    from llb.state import diff as diff
    from llb.state import merge as merge
    from llb.state import mkdir as mkdir
    from llb.state import mkfile as mkfile
    from llb.state import rm as rm
    from llb.state import scratch as scratch
    from llb.state import symlink as symlink

__all__ = [
    "Bind", "Cache", "CacheSharing", "ExecState", "NetMode", "Place", "Secret", "SecurityMode", "SourceFile", "Ssh",
    "State", "Tmpfs", "copy", "diff", "git", "http", "image", "local", "merge", "mkdir", "mkfile", "oci_layout", "rm",
    "scratch", "symlink",
]  # fmt: skip
_ELSEWHERE = {
    "oci_layout": "sources",
    "local": "sources",
    "image": "sources",
    "http": "sources",
    "git": "sources",
    "CacheSharing": "ops",
    "NetMode": "ops",
    "SecurityMode": "ops",
    "Place": "sourcemap",
    "SourceFile": "sourcemap",
}


def __getattr__(name: str) -> object:
    """Loaded when it is asked for: much of the engine knows operations and needs no builder."""
    if name not in __all__:
        raise AttributeError(f"module 'llb' has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(f"llb.{_ELSEWHERE.get(name, 'state')}"), name)
    globals()[name] = found
    return found
