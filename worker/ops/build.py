"""The build op: a build inside the build. Accepted on the wire, refused with an error that says so."""

from __future__ import annotations

from buildengine.errors import HostError
from llb import ops
from solver.vertex import Op


def unsupported(op: ops.BuildOp) -> Op:
    raise HostError("the LLB build op is not supported", hint="solve the inner definition from the frontend instead")
