"""Which held-out task the runs of a report are compared on, and their curves on it."""

from collections.abc import Sequence

from switch_jax.errors import UserError
from switch_jax.reports.runs import Run, Series

QUALITY = "neg_log_perplexity"
CONTENT_QUALITY = "content_neg_log_perplexity"  # without sentinels and EOS; newer runs have it


def held_out_task(runs: Sequence[Run]) -> str | None:
    """The task whose evaluations the runs are compared on: "all" where every run has it.

    None where no run has been evaluated yet, or fine-tuned ones have no task in common: those
    compare by their downstream scores.

    Raises:
      UserError: the runs were evaluated on different tasks.
    """
    evaluated = [run for run in runs if run.evals]
    if not evaluated:
        return None
    common = set.intersection(*(set(run.evals) for run in evaluated))
    if not common and not any(run.fine_tuned for run in evaluated):
        raise UserError(f"{_tasks_differ(evaluated)}; report them one by one")
    return preferred(common)


def empty_rows(runs: Sequence[Run], task: str | None) -> str | None:
    """Why the rows of held-out numbers are empty; None where they are not."""
    evaluated = [run for run in runs if run.evals]
    if task is not None or not evaluated:
        return None
    return f"{_tasks_differ(evaluated)}, so the rows of held-out numbers are empty"


def _tasks_differ(evaluated: Sequence[Run]) -> str:
    tasks = "; ".join(f"{run.name}: {', '.join(run.evals)}" for run in evaluated)
    return f"the runs have no held-out task in common ({tasks})"


def preferred(tasks: set[str]) -> str | None:
    """The task to compare on: "all", the mean over tasks, if it is among them; None: no tasks."""
    return "all" if "all" in tasks else min(tasks, default=None)


def held_out(run: Run, task: str | None) -> Series | None:
    """The held-out curve of a run; None where it has not been evaluated yet."""
    return run.evals.get(task) if task else None
