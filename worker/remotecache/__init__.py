"""Build caches of elsewhere: written into images, read from registries, in BuildKit's format (docs/remote-cache.md)."""
