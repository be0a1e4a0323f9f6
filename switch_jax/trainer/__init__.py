"""The loop around the training step: data, evaluation, checkpoints, signals and records.

`train` calls all others: `prepare` checks the config, `resume` and `restore` find where the run
goes on, `warm_start` which weights it begins with (by the rules of `origins` and `upcycling`), and
`loop` trains.
"""
