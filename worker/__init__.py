"""Carries out what LLB says: sources, steps, file operations, exports, on `cache` and for `solver`."""

from __future__ import annotations

TRACEPOINTS = (
    "layer.unpacked",  # a blob's files are all there, its layer is still lazy
    "step.requested",  # the step's supervisor has all it needs
    "step.ended",  # no process of it is left, its layer is still being made
    "file.changed",  # a file operation has written to its layer
    "export.packed",  # the blob of a layer is in the store, the layer does not know
    "export.committed",  # an image's documents are in the store, nobody refers to them
)
"""Where a test can kill the engine (see buildengine.tracepoints), in the order of one build."""

HELPER_TRACEPOINTS = (
    "launcher.forked",
    "supervisor.grouped",  # the step's control group is made, nothing is in it
    "supervisor.ready",  # PID 1 waits for its request
    "supervisor.passed",  # PID 1 has its request
    "supervisor.ended",  # PID 1 has ended, its control group is there, the engine does not know
)
"""Where a test can kill the launcher of steps or a supervisor: the engine lives, and says that they were killed."""
