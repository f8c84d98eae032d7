"""Registries as a client sees them: references, credentials, tokens, and the pull of manifests and blobs.

    async with open_registry(config, credentials) as registry:
        image = await registry.resolve(parse("debian:12"), platform)
        await registry.fetch_blob(image.layers[0].descriptor, (image.origin,), writer)

It knows the distribution-spec and `worker.oci`'s documents. It knows no store, no layer format and no build, and
never reads the environment: configuration and credentials are arguments.
"""
