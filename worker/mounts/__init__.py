"""Mounts that the engine makes for itself: trees of layers that are attached nowhere."""
