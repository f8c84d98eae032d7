"""Those that name a manifest as their subject, as an index, page by page (spec.md, "Listing Referrers"). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from cache.served import ServedManifest
from worker.oci.types import OCI_INDEX
from worker.registry.server.answers import Answer
from worker.registry.server.routes import Referrers

MOST = 1000
_MAX_BYTES = 3 << 20  # clients take an index of 4 MiB


def listing(route: Referrers, found: Sequence[ServedManifest]) -> Answer:
    """`found` is one more than MOST when there are more. The rest is behind a link."""
    shown = _fitting(found)
    text = ",".join(one.descriptor for one in shown)
    body = f'{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{text}]}}'
    headers = [("Content-Type", OCI_INDEX)]
    if route.artifact_type:
        headers.append(("OCI-Filters-Applied", "artifactType"))
    if len(shown) < len(found):
        headers.append(("Link", _link(route, shown[-1])))
    return Answer(status=200, headers=tuple(headers), body=body.encode())


def _fitting(found: Sequence[ServedManifest]) -> Sequence[ServedManifest]:
    size = 0
    for count, one in enumerate(found[:MOST]):
        size += len(one.descriptor)
        if size > _MAX_BYTES and count:
            return found[:count]
    return found[:MOST]


def _link(route: Referrers, last: ServedManifest) -> str:
    query = {"last": last.digest, **({"artifactType": route.artifact_type} if route.artifact_type else {})}
    return f'</v2/{route.name}/referrers/{route.digest}?{urlencode(query)}>; rel="next"'
