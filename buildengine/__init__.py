"""The floor is flat, the roof is folders: the plain modules here are imported by everyone and import nobody;
the subpackages (api, client, daemon, cli) stand on all the others."""

__version__ = "0.1.0"
