'''Frontends that are written in Python: the API for their authors.

A build language is a module with one coroutine. It gets a `Context`, which answers what it may ask, and gives back a
tree, an `Image`, one of these for each platform, or a `Result`:

    from frontends import Context, Image, each_platform
    import llb

    @each_platform
    async def build(ctx: Context) -> Image:
        """An image that serves what is in the directory `public` of the context."""
        public = await ctx.context(include=["public"])
        base = await ctx.image("nginx:alpine")
        return base.file(llb.copy(public, "public", "/usr/share/nginx/html", contents=True)).with_port("80/tcp")

    context   what a build may ask              files    files of a tree
    image     a tree with its image config      result   what a build gives back
    building  `build` run on a gateway: what the engine, the testing kit and a frontend image all do
'''
