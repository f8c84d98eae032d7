"""Attestations of the gateway API: messages to values and back. No I/O.

Facts: BuildKit frontend/gateway/client/attestation.go.
"""

from __future__ import annotations

from buildengine.api import gateway_pb2 as pb
from buildengine.api.bridge import Attestation, Ref
from buildengine.api.rpc import Code, RpcError
from buildengine.attestation import Claim, Kind, Subject, SubjectKind

_KINDS = {Kind.IN_TOTO: pb.InToto, Kind.BUNDLE: pb.Bundle}
_SUBJECTS = {SubjectKind.SELF: pb.Self, SubjectKind.RAW: pb.Raw}


def heard(message: pb.Attestation) -> Attestation:
    """Of its reference the id alone counts. Raises RpcError for a kind that is not known."""
    try:
        claim = Claim(
            kind=Kind(message.kind),
            predicate_type=message.inTotoPredicateType,
            subjects=tuple(map(_subject, message.inTotoSubjects)),
            path=message.path,
            metadata=dict(message.metadata),
        )
    except ValueError as error:
        raise RpcError(Code.INVALID_ARGUMENT, f"unknown kind of attestation: {error}") from error
    return Attestation(claim=claim, ref=Ref(id=message.ref.id) if message.HasField("ref") else None)


def told(attestation: Attestation, ref: pb.Ref | None) -> pb.Attestation:
    claim = attestation.claim
    return pb.Attestation(
        kind=_KINDS[claim.kind],
        metadata=claim.metadata,
        ref=ref,
        path=claim.path,
        inTotoPredicateType=claim.predicate_type,
        inTotoSubjects=[
            pb.InTotoSubject(kind=_SUBJECTS[each.kind], name=each.name, digest=each.digests) for each in claim.subjects
        ],
    )


def _subject(message: pb.InTotoSubject) -> Subject:
    return Subject(kind=SubjectKind(message.kind), name=message.name, digests=tuple(message.digest))
