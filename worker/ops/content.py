"""Dependencies by content: an input whose bytes, not its history, decide the key."""

from __future__ import annotations

from buildengine.digest import Digest
from buildengine.errors import BuildError
from cache.selection import Selector, selectors_key
from llb import ops
from solver.vertex import Dep, Result
from worker.context import OpContext
from worker.failures import Failed
from worker.localtree import LocalTree


def copied(copy: ops.CopyAction) -> Selector:
    """What a copy takes of its source."""
    return Selector(
        path=copy.src,
        wildcard=copy.allow_wildcard,
        follow_links=copy.follow_symlink,
        include=copy.include_patterns,
        exclude=copy.exclude_patterns,
        required=copy.required_paths,
    )


def dep(context: OpContext, selectors: tuple[Selector, ...], index: int) -> Dep:
    """The dependency on what these selectors select of input `index`."""

    async def content_key(result: Result) -> Digest:
        try:
            return await digest(result)
        except BuildError:
            failures = context.build.failures
            if failures.wanted:
                failures.keep(context.reporter.vertex, Failed(inputs=(result.clone(),), dependency=index))
            raise

    async def digest(result: Result) -> Digest:
        if isinstance(result, LocalTree):
            return await result.content_digest(selectors)
        stack = await context.trees.stack_of(result)
        known = context.cache.contenthash.known(stack, selectors)
        if known is not None:
            return known
        await context.trees.ensure(stack)
        with context.trees.open_stack(stack) as root:
            return await context.cache.contenthash.digest(stack, root, selectors)

    whole = selectors == (Selector(),)
    return Dep(selector="" if whole else selectors_key(selectors), content_key=content_key)
