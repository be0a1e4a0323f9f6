"""What a report shows: runs, grouped and compared."""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property

from switch_jax.reports.comparison import ComparisonOverSeeds, caveats, compare_all
from switch_jax.reports.configurations import Configuration, group_runs, is_study, runs_of
from switch_jax.reports.downstream import Measure, measures
from switch_jax.reports.records import QUALITY, preferred_task
from switch_jax.reports.runs import Run, read_runs
from switch_jax.reports.series import MeanCurve, Series, mean_curve

_UNEVEN = 1.25  # times as long for a step as another seed: more than chance


@dataclasses.dataclass(frozen=True)
class Findings:
    """The runs of a report and what follows from them."""

    configurations: list[Configuration]
    threshold: float | None = None  # nats; a table says when each first has this held-out value

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
        return list(_notes(self))

    def held_out(self, run: Run) -> Series | None:
        """The curve of a run on the task, or else its own task; None: not evaluated yet."""
        return run.evals.get(self.task or run.own_task or "")

    def mean_quality(self, configuration: Configuration) -> MeanCurve | None:
        """On the task, over the seeds of a configuration; None without a task in common."""
        return mean_curve([run.evals.get(self.task or "") for run in configuration.runs], QUALITY)


def _notes(findings: Findings) -> Iterator[str]:
    found, runs = findings.configurations, findings.runs
    yield from caveats([pair for comparison in findings.comparisons for pair in comparison.pairs])
    for run in runs:
        yield from run.left_out
    for c in found:
        times = [1000 * run.seconds / run.last_step for run in c.runs if run.last_step]
        if times and max(times) > _UNEVEN * min(times):
            yield (
                f"a step of {c.label} took {min(times):,.0f} to {max(times):,.0f} ms, by the seed, "
                "though all compute the same: compare steps, not time"
            )
    tasks = [f"{run.name}: {', '.join(run.evals)}" for run in runs if run.evals]
    if tasks and findings.task is None:
        yield (
            f"the runs have no held-out task in common ({'; '.join(tasks)}), so each has the "
            "numbers of its own, which do not compare"
        )
    if len(found) > 1 and all(c.sparse for c in found):
        yield (
            "no run is dense, so nothing says how much sooner these are than a dense one: add a "
            "run of a dense model (models/t5_*.gin) with the same batches"
        )
    step_times = {c.label: c.runs[0].facts.get("step_ms") for c in found}
    counted = [f"{label} {ms:g}" for label, ms in step_times.items() if ms is not None]
    if counted:
        yield (
            "training time is counted anew, as steps times the milliseconds of a step, which were "
            f"measured apart: {', '.join(counted)}"
        )


def read_findings(folders: Sequence[str], threshold: float | None = None) -> Findings:
    """Reads the runs in these folders (MODEL_DIRs), finished or still going, and groups them.

    Raises:
      UserError: a folder is not that of a run, or cannot be read.
    """
    return Findings(group_runs(read_runs(folders)), threshold)
