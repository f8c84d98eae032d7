"""What this daemon says it can do: BuildKit's capability ids, of which a client believes every one.

A client refuses by itself to use what is not here, so an id stands here only once all that it promises is done.
Facts: BuildKit frontend/gateway/pb/caps.go, solver/pb/caps.go.
"""

from __future__ import annotations

from llb import caps

GATEWAY = (
    "frontend.caps",
    "frontend.inputs",
    "gateway.evaluate",
    "gateway.solve.evaluate",
    "gateway.solve.metadata",
    "gateway.warnings",
    "importcaches",
    "proto.refarray",
    "readdir",
    "readfile",
    "reference.attestations",
    "reference.output",
    "resolveimage",
    "resolveimage.resolvemode",
    "return",
    "returnmap",
    "solve.base",
    "solve.inlinereturn",
    "source.metaresolver",
    "statfile",
)
CONTAINERS = ("gateway.exec", "gateway.exec.extrahosts", "gateway.exec.secretenv", "gateway.exec.signals")
DEPRECATED = frozenset({"solve.inlinereturn"})

_NOT_YET = frozenset({
    "cache.azblob", "cache.gha", "cache.s3",
    "exec.meta.cdi", "exec.meta.security.devices.v1",
    "exporter.session",
    "source.buildop.llbfilename", "source.git.signatureverify", "source.local.metadatatransfer",
})  # fmt: skip  # understood in a definition, and refused when it comes to it
LLB = tuple(sorted(caps.KNOWN - _NOT_YET))
