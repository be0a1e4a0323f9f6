"""Evaluation on validation sets, of a run under way and of a run's checkpoints (`eval`).

`teacher_forced` has perplexity and accuracy; `task_metrics`, by decoding, the tasks' own metrics.
"""
