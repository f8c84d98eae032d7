"""From instructions to LLB, one function for each instruction: what it makes of the stage so far. Pure."""
