"""Why steps ran: what is written down of a build, and what has changed since.

    steps of a job + operations -> Step (facts, inputs, keys)   -> the store, with lists of files (`cache.explained`)
    steps of today + steps of then -> pairs -> differences -> causes -> one ExplainEvent a step

All but `files` is pure. It knows operations of LLB, and no frontend: names of variables and instructions come from what
it is given. See docs/explain.md.
"""
