"""What a build was made of and how, told as an SLSA provenance. Pure: values in, documents out.

capture    what one result used: sources with what they turned out to be, secrets, network
scope      whose those are: a frontend asks for sub-builds, and each has sources of its own
options    the attributes of `attest:provenance`
steps      the operations and the source map, for mode=max
predicate  the document, in SLSA v0.2 and v1
"""
