"""Sources: what comes into a build from outside and is not an image: git repositories, web files, local trees.

Each source answers two questions: what is the content now (the key), and where does it go (a directory that the
caller opened). It knows no solver, store or mount, and no other subpackage of `worker`.
"""
