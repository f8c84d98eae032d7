"""The Dockerfile frontend: a pipeline of pure steps, and an edge that awaits.

    bytes          lines.split          logical lines: continuations, heredocs, directives
    lines          parse.instructions   frozen instructions, by grammar.lark
    instructions   plan.make            a graph of stages for one platform: arguments, FROM, target
    graph          loading.Loader       base images and named contexts, through the gateway; ONBUILD triggers
    graph          convert.conversion   a state, an image config: the LLB
    definition     build                one result for each platform

`build`, `source`, `loading` and `together` are the edge: only they import trio or ask the gateway. `words` expands
variables, `lint` collects findings on the way.
"""
