"""What a report shows: runs, grouped and compared."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property

from switch_jax.reports.comparison import ComparisonOverSeeds, caveats, compare_all
from switch_jax.reports.configurations import Configuration, group_runs, is_study, runs_of
from switch_jax.reports.downstream import Measure, measures
from switch_jax.reports.records import preferred_task
from switch_jax.reports.runs import Run, read_runs
from switch_jax.reports.series import MeanCurve, Series, mean_curve

_UNEVEN = 1.25  # times as long for a step as another seed: more than chance


@dataclasses.dataclass(frozen=True)
class Findings:
    """The runs of a report and what follows from them.

    Attributes:
      configurations: the runs; those that differ in their seed alone are one configuration.
      threshold: a held-out negative log perplexity, in nats; when each configuration first has it
        becomes a table. None = no table.
    """

    configurations: list[Configuration]
    threshold: float | None = None

    @cached_property
    def runs(self) -> list[Run]:
        """In the order of the configurations."""
        return runs_of(self.configurations)

    @cached_property
    def task(self) -> str | None:
        """The held-out task that the runs are compared on: "all" where every run has it.

        None where no run has been evaluated yet, or they have no task in common: each then has the
        number of its own task (`Run.own_task`), and they are not compared.
        """
        evaluated = [set(run.evals) for run in self.runs if run.evals]
        return preferred_task(set.intersection(*evaluated)) if evaluated else None

    @cached_property
    def comparisons(self) -> list[ComparisonOverSeeds]:
        """Of sparse configurations with dense ones."""
        return compare_all(self.configurations, self.task)

    @cached_property
    def measures(self) -> list[Measure]:
        """The metrics of generated text."""
        return measures([run.scores for run in self.runs])

    @cached_property
    def upstream_task(self) -> str | None:
        """The pretraining task on which all checkpoints of known quality were evaluated."""
        known = [set(run.origin.quality) for run in self.runs if run.origin and run.origin.quality]
        return preferred_task(set.intersection(*known)) if known else None

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
        return [
            *caveats(pairs),
            *(line for run in self.runs for line in run.left_out),
            *(note for c in self.configurations for note in _uneven_time(c)),
            *_no_task_in_common(self),
            *_without_dense(self.configurations),
            *_counted_anew(self.configurations),
        ]

    def held_out(self, run: Run) -> Series | None:
        """The curve of a run on the task, or else its own task; None: not evaluated yet."""
        return run.evals.get(self.task or run.own_task or "")

    def mean_held_out(self, configuration: Configuration, name: str) -> MeanCurve | None:
        """One of the held-out numbers over the seeds of a configuration, if it has it."""
        return mean_curve(map(self.held_out, configuration.runs), name)


def _uneven_time(configuration: Configuration) -> list[str]:
    """A note on seeds that took different times for the same steps."""
    times = [1000 * run.seconds / run.last_step for run in configuration.runs if run.last_step]
    if not times or not max(times) > _UNEVEN * min(times):
        return []
    return [
        f"a step of {configuration.label} took {min(times):,.0f} to {max(times):,.0f} ms, by the "
        "seed, though all compute the same: compare steps, not time"
    ]


def _no_task_in_common(findings: Findings) -> list[str]:
    """A note where the held-out numbers of the runs are of different tasks."""
    evaluated = [run for run in findings.runs if run.evals]
    if findings.task is not None or not evaluated:
        return []
    tasks = "; ".join(f"{run.name}: {', '.join(run.evals)}" for run in evaluated)
    return [
        f"the runs have no held-out task in common ({tasks}), so each has the numbers of its own, "
        "which do not compare"
    ]


def _without_dense(found: Sequence[Configuration]) -> list[str]:
    """A note on several Switch runs without a dense one beside them."""
    if len(found) < 2 or not all(configuration.sparse for configuration in found):
        return []
    return [
        "no run is dense, so nothing says how much sooner these are than a dense one: add a run of "
        "a dense model (models/t5_*.gin) with the same batches"
    ]


def _counted_anew(found: Sequence[Configuration]) -> list[str]:
    """A note on runs whose time no clock measured."""
    times = {c.label: c.runs[0].facts.get("step_ms") for c in found}
    counted = [f"{label} {ms:g}" for label, ms in times.items() if ms is not None]
    if not counted:
        return []
    return [
        "training time is counted anew, as steps times the milliseconds of a step, which were "
        f"measured apart: {', '.join(counted)}"
    ]


def read_findings(folders: Sequence[str], threshold: float | None = None) -> Findings:
    """Reads the runs in these folders and groups them.

    Args:
      folders: MODEL_DIRs, finished or still going.
      threshold: see `Findings`.

    Raises:
      UserError: a folder is not that of a run, or cannot be read.
    """
    return Findings(group_runs(read_runs(folders)), threshold)
