"""What a run begins with.

`prepare` checks the config, `resume` and `restore` find where the run goes on, `warm_start` which
weights it begins with (by the rules of `origins` and `upcycling`, from a `teacher` or another
checkpoint), and `announcement` prints it; `dry_run` stops there.
"""
