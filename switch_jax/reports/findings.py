"""What a report shows: runs, grouped and compared."""

import dataclasses
from collections.abc import Sequence

from switch_jax.reports.comparison import ComparisonOverSeeds, caveats, compare_all
from switch_jax.reports.configurations import Configuration, group_runs, is_study, runs_of
from switch_jax.reports.downstream import Downstream, left_out, read_downstream
from switch_jax.reports.held_out import held_out_task, no_task_in_common
from switch_jax.reports.runs import Run, read_runs

_UNEVEN = 1.25  # times as long for a step as another seed: more than chance


@dataclasses.dataclass(frozen=True)
class Findings:
    """The runs of a report and what follows from them.

    Attributes:
      configurations: the runs; those that differ in their seed alone are one configuration.
      task: the held-out task that they are compared on; None: they have none in common.
      comparisons: of sparse configurations with dense ones.
      downstream: scores on downstream tasks, in the order of `runs`.
      threshold: a held-out negative log perplexity, in nats; when each configuration first has it
        becomes a table. None = no table.
    """

    configurations: list[Configuration]
    task: str | None
    comparisons: list[ComparisonOverSeeds]
    downstream: Downstream
    threshold: float | None

    @property
    def runs(self) -> list[Run]:
        return runs_of(self.configurations)

    @property
    def is_study(self) -> bool:
        """See `configurations.is_study`."""
        return is_study(self.configurations)

    @property
    def title(self) -> str:
        """What the page and the picture are called."""
        if self.is_study:
            dense = ", ".join(c.label for c in self.configurations if c.dense)
            experts = ", ".join(str(c.num_experts) for c in self.configurations if c.sparse)
            return f"Training report: {dense}, and {experts} experts"
        return f"Training report: {', '.join(c.title for c in self.configurations)}"

    @property
    def notes(self) -> list[str]:
        """What a reader of the numbers must know."""
        pairs = [pair for comparison in self.comparisons for pair in comparison.pairs]
        notes = [*caveats(pairs), *left_out(self.runs, self.downstream)]
        notes += [note for c in self.configurations if (note := _uneven_time(c))]
        others = (
            no_task_in_common(self.runs, self.task),
            _without_dense(self.configurations),
            _counted_anew(self.configurations),
        )
        return [*notes, *(note for note in others if note)]


def _uneven_time(configuration: Configuration) -> str | None:
    """A note on seeds that took different times for the same steps; None where they did not."""
    times = [1000 * run.seconds / run.last_step for run in configuration.runs if run.last_step]
    if not times or not max(times) > _UNEVEN * min(times):
        return None
    return (
        f"a step of {configuration.label} took {min(times):,.0f} to {max(times):,.0f} ms, by the "
        "seed, though all compute the same: compare steps, not time"
    )


def _without_dense(found: Sequence[Configuration]) -> str | None:
    """A note on several Switch runs without a dense one beside them; None for others."""
    if len(found) < 2 or not all(configuration.sparse for configuration in found):
        return None
    return (
        "no run is dense, so nothing says how much sooner these are than a dense one: add a run of "
        "a dense model (models/t5_*.gin) with the same batches"
    )


def _counted_anew(found: Sequence[Configuration]) -> str | None:
    """A note on runs whose time no clock measured; None where there are none."""
    times = {c.label: c.runs[0].facts.get("step_ms") for c in found}
    counted = [f"{label} {ms:g}" for label, ms in times.items() if ms is not None]
    if not counted:
        return None
    return (
        "training time is counted anew, as steps times the milliseconds of a step, which were "
        f"measured apart: {', '.join(counted)}"
    )


def read_findings(folders: Sequence[str], threshold: float | None = None) -> Findings:
    """Reads the runs in these folders and compares them.

    Args:
      folders: MODEL_DIRs, finished or still going.
      threshold: see `Findings`.

    Raises:
      UserError: a folder is not that of a run, or cannot be read.
    """
    runs = read_runs(folders)
    task = held_out_task(runs)
    configurations = group_runs(runs)
    return Findings(
        configurations,
        task,
        compare_all(configurations, task),
        read_downstream(runs_of(configurations)),
        threshold,
    )
