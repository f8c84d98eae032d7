"""Frontends: what turns build files into LLB. They see `llb` and the `Gateway` of `frontends.gateway`, nothing else."""
