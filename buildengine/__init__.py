"""The floor is flat, the roof is folders: the plain modules here are imported by everyone and import nobody;
the subpackages (api, client, daemon, cli) stand on all the others."""

__version__ = "0.1.0"
BUILDKIT = "v0.26.3"  # the level of BuildKit's API that is served
USER_AGENT = f"pybuild/{__version__} (like buildkit/{BUILDKIT})"  # servers that know builders look for that word
