"""Running the steps of a build in namespaces of their own.

In the engine: `spec` (what to run), `plan` and `operations` (what that takes), `request`, `bundle`, `runtime`.
In helper processes, standard library only: `launcher` forks a `supervisor` for each step, which forks `init`, which
builds the root (`assembly`, `actions`, `targets`, `overlay`), gives up its privileges (`confine`) and execs; or hands
over to runc or crun (`ocirun`). This file imports nothing: the launcher loads it.
"""
