"""Stores and names things: blobs, layers, cache-key records, cache mounts, images. It never mounts.

    opened         `open_cache(root)`: the way in; everything below, alive for one `async with`
    store          blobs by digest, verified as they are written and read
    layers         layers and stacks of layers: made, filled, held
    records        the key graph and what was stored under its keys
    contenthash    content digests of trees; localindex: of the user's own directories
    cachemounts    directories that outlive builds; images: names of images
    served         repositories of the registry of our own
    usage, prune, verify

Safety in four rules, each enforced in one place:

    1. A row comes before its directory and goes before it; a directory without a row is garbage. A blob is the
       other way round, inside one transaction: a file without a row is garbage.         layers, blobs, recovery
    2. What a live process makes or reads is held under its lease, a file that it keeps locked.   leases, holds
    3. What was committed but not yet flushed is `unsynced` and dropped after another boot.          durability
    4. Nothing is deleted but inside a transaction that has just seen that nobody holds it.               prune
"""

from __future__ import annotations

TRACEPOINTS = (
    "blob.written",  # the temporary file is whole
    "blob.renamed",  # it has its name, but no row
    "blob.committed",
    "layer.created",  # an active layer has its directories
    "layer.filled",  # its content is whole, its row still says active (or lazy)
    "layer.committed",
    "layer.deleted",  # its row is gone, its directory is not
    "record.linked",  # keys and links are written, the record is not
    "record.committed",
    "cachemount.filled",  # the copy of the base is whole, its row still says so not
    "cachemount.committed",
    "image.committed",
    "served.committed",  # a manifest of the registry of our own has its row and its tags
    "index.committed",
    "sync.flushed",  # the file system is flushed, the rows still say unsynced
    "sync.done",
)
"""Where a test can kill the process (see buildengine.tracepoints), in the order of one life."""
