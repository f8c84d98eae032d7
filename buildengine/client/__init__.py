"""A client of the build API, for CI programs and for `pybuild --addr`: asyncio, on grpc.aio and aiofiles.

    async with connect("unix:///run/buildkit/buildkitd.sock") as daemon:
        outcome = await build(daemon, BuildRequest(ref="one", directories={"context": here, "dockerfile": here}), print)
        print(outcome.metadata["containerimage.digest"])

The one package that knows asyncio. It talks to any daemon that speaks BuildKit's API, and needs no engine and no root.
"""
