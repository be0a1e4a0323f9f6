"""Which held-out task the runs of a report are compared on, and their curves on it."""

from collections.abc import Sequence

from switch_jax.reports.runs import Run, Series

QUALITY = "neg_log_perplexity"
CONTENT_QUALITY = "content_neg_log_perplexity"  # without sentinels and EOS; newer runs have it


def held_out_task(runs: Sequence[Run]) -> str | None:
    """The task whose evaluations the runs are compared on: "all" where every run has it.

    None where no run has been evaluated yet, or they have no task in common: each then has the
    number of its own task (`own_task`), and they are not compared.
    """
    evaluated = [set(run.evals) for run in runs if run.evals]
    return preferred(set.intersection(*evaluated)) if evaluated else None


def own_task(run: Run, task: str | None) -> str | None:
    """The task that the runs are compared on; without one, the run's own."""
    return task or preferred(set(run.evals))


def no_task_in_common(runs: Sequence[Run], task: str | None) -> str | None:
    """A note where the held-out numbers of the runs are of different tasks; None where not."""
    evaluated = [run for run in runs if run.evals]
    if task is not None or not evaluated:
        return None
    tasks = "; ".join(f"{run.name}: {', '.join(run.evals)}" for run in evaluated)
    return (
        f"the runs have no held-out task in common ({tasks}), so each has the numbers of its own, "
        "which do not compare"
    )


def preferred(tasks: set[str]) -> str | None:
    """The task to compare on: "all", the mean over tasks, if it is among them; None: no tasks."""
    return "all" if "all" in tasks else min(tasks, default=None)


def own_held_out(run: Run, task: str | None) -> Series | None:
    """As `held_out`; without a task that all runs have, the run's own curve."""
    return held_out(run, own_task(run, task))


def held_out(run: Run, task: str | None) -> Series | None:
    """The held-out curve of a run; None where it has not been evaluated yet."""
    return run.evals.get(task) if task else None
