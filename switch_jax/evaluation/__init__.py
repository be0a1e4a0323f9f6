"""Evaluation on validation sets: of a run under way, and of a run's checkpoints (`eval`).

- `teacher_forced`: perplexity and accuracy on given targets.
- `infer_evaluation`: the tasks' own metrics within a run, of generated text (INFER_EVAL).
- `task_evaluator`: a task's own metrics, by seqio.
- `evaluate`: what `switch_jax eval` and `switch_jax.evaluate` do.
- `checkpoint_evaluator`: the checkpoints of a run, one by one; reuses earlier records.

The best evaluation so far, by BEST_METRIC, is the trainer's: `trainer.best_evaluation`.
"""
