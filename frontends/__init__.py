"""Frontends: what turns build files into LLB. They see `llb` and the `Gateway` of `frontends.gateway`, nothing else.

What an author of one needs is here by name, see `frontends.python`:

    from frontends import Context, Image, each_platform
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from buildengine.errors import UserError as UserError
    from buildengine.platform import Platform as Platform
    from frontends.gateway import FileInfo as FileInfo
    from frontends.python.context import Context as Context
    from frontends.python.files import Files as Files
    from frontends.python.image import Image as Image
    from frontends.python.result import Result as Result
    from frontends.python.result import each_platform as each_platform

__all__ = ["Context", "FileInfo", "Files", "Image", "Platform", "Result", "UserError", "each_platform"]
_WHERE = {
    "Context": "frontends.python.context",
    "FileInfo": "frontends.gateway",
    "Files": "frontends.python.files",
    "Image": "frontends.python.image",
    "Platform": "buildengine.platform",
    "Result": "frontends.python.result",
    "UserError": "buildengine.errors",
    "each_platform": "frontends.python.result",
}


def __getattr__(name: str) -> object:
    """Loaded when it is asked for: the engine's own frontends need none of it."""
    if name not in _WHERE:
        raise AttributeError(f"module 'frontends' has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(_WHERE[name]), name)
    globals()[name] = found
    return found
