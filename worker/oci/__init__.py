"""Images as documents and as archives: what a manifest says, what an OCI layout or a docker archive holds.

The vocabulary of `worker`: it imports the floor only, and knows no registry, store, layer or mount.
"""
