"""What a run begins with.

`prepare` checks the config, `resume` finds where the run goes on, and `warm_start` which weights it
begins with (by the rules of `origins` and `upcycling`).
"""
