"""Evaluation on validation sets, of a run under way and of a run's checkpoints (`eval`).

- `teacher_forced`: by given targets, their perplexity and accuracy.
- `task_metrics`: by decoding, the metrics of the tasks (INFER_EVAL).
- `evaluate`: both, of the checkpoints of a run; reuses earlier records.
- `best_evaluation`: the best so far, by BEST_METRIC.
"""
