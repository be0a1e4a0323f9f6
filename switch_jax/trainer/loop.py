"""The loop around the training step: steps, records, evaluation, checkpoints, and bad steps."""

from typing import Any, NamedTuple

import jax

from switch_jax.checkpointing import Checkpoints
from switch_jax.data.packing import empty_batch
from switch_jax.data.reading.prefetch import Prefetch
from switch_jax.evaluation.best_evaluation import in_words, metric_of
from switch_jax.evaluation.task_metrics import DecodingEvaluation, average_of_tasks
from switch_jax.evaluation.teacher_forced import ALL, TeacherForcedEvaluation
from switch_jax.partitioning.placing import put_batch
from switch_jax.run_folder import RecordKind
from switch_jax.train_step.state import TrainState, state_of_step
from switch_jax.train_step.step import Metrics
from switch_jax.trainer.bad_steps import BadSteps
from switch_jax.trainer.device_batches import DeviceBatch
from switch_jax.trainer.instruments import Instruments
from switch_jax.trainer.signals import NONE, Stopped, StopSignals
from switch_jax.trainer.start.prepare import Prepared
from switch_jax.trainer.start.restore import RunState, restore
from switch_jax.utils.errors import UserError

# Seconds to wait for data before asking whether the run is to stop.
_PATIENCE = 1.0


class _Dispatched(NamedTuple):
    """A step that the devices were given: its number, its metrics to come, and its batch."""

    step: int
    metrics: Metrics
    batch: DeviceBatch


class Compiled(NamedTuple):
    """What the loop runs: the compiled step, evaluation (or None), and batches made ahead."""

    train_step: Any
    evaluation: TeacherForcedEvaluation | None
    infer_evaluation: DecodingEvaluation | None
    batches: Prefetch[DeviceBatch]


class TrainingLoop:
    """A run from where it is to its last step.

    `run` is where it is, as of the last step that is finished: its metrics are known, and it
    changed the state. While the loop looks at it the devices have the next one, `_in_flight`.
    """

    def __init__(
        self,
        prepared: Prepared,
        run: RunState,
        checkpoints: Checkpoints,
        instruments: Instruments,
        compiled: Compiled,
        stop: StopSignals,
    ) -> None:
        self._prepared, self._config = prepared, prepared.config
        self.run = run
        self._in_flight: _Dispatched | None = None
        self._checkpoints, self._instruments, self._stop = checkpoints, instruments, stop
        self._train_step, self._evaluation, self._infer_evaluation, self._batches = compiled
        self._bad = BadSteps(prepared.config.guard, instruments.folder)
        self._saved = run.step  # of the newest checkpoint
        self._signal = NONE  # the largest of all hosts in any step
        self._out_of_data = False  # a signal came while this host waited for its next batch

    def train(self) -> TrainState:
        """Trains to the end, and returns the final state; raises as `train.train`."""
        config, run, instruments = self._config.run, self.run, self._instruments
        period = config.eval_period
        if run.step == 0 and period is not None:
            instruments.progress.say("evaluating before the first step")
            self._evaluate()
        # The pipeline starts beside the compilation, so the wait for its first batch is of that.
        with instruments.goodput.spend("compile"):
            self._wait_for_data()
        while not run.is_over(self._config):
            before = self._in_flight
            try:
                step = self._dispatch()
            except UserError:  # of the data
                self._save_after_data_error()
                raise
            # The devices have their next step already, so waiting for this one leaves them busy.
            if before is not None:
                self._finish(before)
            self._checkpoints.check()
            last = step == config.train_steps
            evaluate = period is not None and (last or step % period == 0)
            save = last or step % config.checkpoint_period == 0
            if not (evaluate or save or self._signal or self._bad.too_many()):
                continue
            self._finish_all()  # so that a checkpoint is never ahead of the metrics
            if self._bad.too_many():
                self._roll_back()
            else:
                instruments.records.flush(run.position.batches)
                value = self._evaluate() if evaluate and run.step == step else None
                save = last or (save and self._bad.may_save())
                if save or self._signal or run.stops_early(self._config):
                    self._save(value)
            if self._signal:  # a return has its checkpoint, too
                self._checkpoints.wait()
                raise Stopped(self._signal, run.step)
        if run.stops_early(self._config):
            instruments.progress.say(f"{run.best.in_words(config.best_metric)}: stopping early")
        self._checkpoints.wait()
        return run.state

    def _dispatch(self) -> int:
        """Gives the devices one more step, and returns its number."""
        run, instruments = self.run, self._instruments
        with instruments.goodput.spend("data"):
            batch = self._next_batch()
        step = (run.step if self._in_flight is None else self._in_flight.step) + 1
        instruments.watchdog.alive()
        instruments.profiler.before(step)
        with instruments.goodput.spend("step"), instruments.profiler.annotate(step):
            run.state, metrics = self._train_step(
                state_of_step(self._config, run.state),
                batch.arrays,
                self._stop.arrays(no_batch=self._out_of_data),
            )
        self._in_flight = _Dispatched(step, metrics, batch)
        trace = instruments.profiler.after(step, metrics)
        if trace:
            instruments.progress.say(trace)
        instruments.progress.advance()
        return step

    def _next_batch(self) -> DeviceBatch:
        """Waits for data. If a signal to stop comes meanwhile, the batch is padding from then on.

        The other hosts may have begun the step, and wait for this one to take part. With what
        `StopSignals` gives it then, the step changes nothing on any host.
        """
        self._wait_for_data()
        if not self._out_of_data:
            return self._batches.get()
        config = self._config
        lengths = config.data.task_feature_lengths
        padding = empty_batch(config.model.stacks, config.run.batch_size, lengths)
        return DeviceBatch(put_batch(padding, self._prepared.mesh), padding, self.run.position)

    def _wait_for_data(self) -> None:
        while not (self._out_of_data or self._batches.is_ready(_PATIENCE)):
            self._out_of_data = self._stop.is_wanted()

    def _finish_all(self) -> None:
        """Finishes the step in flight; `run` is then of one step, and its layers are in stacks."""
        if self._in_flight is not None:
            self._finish(self._in_flight)
        self._in_flight = None
        self.run.state = self.run.state.stacked()

    def _finish(self, dispatched: _Dispatched) -> None:
        """Waits for a step, and takes in what it reports."""
        step, metrics, batch = dispatched
        instruments = self._instruments
        with instruments.goodput.spend("step"):
            skipped, in_a_row, norm, signals = jax.device_get(
                (metrics.skipped, metrics.bad_in_a_row, metrics.gradient_norm, metrics.signals)
            )
        self._signal = max(self._signal, int(signals.signal))
        if signals.no_batch:  # the step was not done
            return
        self.run.step, self.run.position = step, batch.position
        self._bad.in_a_row = int(in_a_row)
        instruments.records.add(step, metrics)
        if skipped:
            text, values = self._bad.describe(step, metrics, batch)
            instruments.progress.say(text)
            instruments.write(RecordKind.SKIPPED, step, values)
        elif warning := self._bad.warning(step, norm):
            instruments.progress.say(warning)
        if step % self._config.run.log_period == 0:
            instruments.records.flush(batch.position.batches)

    def _roll_back(self) -> None:
        """Returns to the last checkpoint before the bad steps; the data go on."""
        run, instruments = self.run, self._instruments
        in_a_row = self._bad.in_a_row
        bad = self._bad.in_words(run.step)
        instruments.records.flush(run.position.batches)  # the steps that are given up
        self._bad.check_may_go_back(run.step)
        with instruments.goodput.spend("checkpoint"):
            del run.state  # there may be no room for two states
            restored = restore(self._prepared, self._checkpoints, last=run.step - in_a_row)
            back_to = {"bad_steps": in_a_row, "back_to": restored.step}
            instruments.write(RecordKind.ROLLBACK, run.step, back_to)
            run.step, run.state, run.best = restored.step, restored.state, restored.best
            self._saved = run.step
            self._bad.went_back()
            # From now on this checkpoint belongs to these data, even if no other one follows.
            if run.step in self._checkpoints.steps():
                self._checkpoints.amend(run.step, run.notes())
            else:
                self._checkpoints.save(run.step, run.state, run.notes(), None, run.best.of)
        instruments.progress.back_to(run.step)
        instruments.progress.say(f"{bad}: back to step {run.step}, and on with new data")

    def _evaluate(self) -> float:
        """Evaluates; returns the value that the best checkpoints are chosen by."""
        run, instruments, metric = self.run, self._instruments, self._config.run.best_metric
        results = self._results()
        for task, values in results.items():
            instruments.write(RecordKind.EVAL, run.step, {"task": task, **values})
        instruments.progress.say(f"step {run.step}: {in_words(results, metric)}")
        value = metric_of(results, metric)
        run.best.update(run.step, value)
        return value

    def _results(self) -> dict[str, dict[str, Any]]:
        """Metrics by task; with INFER_EVAL also "generated" and what goes with it, of each.

        Of a mixture there is also the task "all", whose generated 'average' is over its tasks.
        """
        run, instruments = self.run, self._instruments
        with instruments.goodput.spend("eval"):
            assert self._evaluation is not None
            results: dict[str, dict[str, Any]] = dict(self._evaluation(run.state.parameters))
            instruments.watchdog.alive()
            if self._infer_evaluation is not None:
                own = {}
                for task in self._infer_evaluation.tasks:
                    found = self._infer_evaluation(task, run.state.parameters)
                    own[task] = found.metrics
                    results[task] |= {
                        "examples": len(found.rows),
                        "generated": found.metrics,
                        "majority_baseline": found.majority_baseline,
                    }
                    instruments.watchdog.alive()
                if ALL in results:
                    results[ALL] |= {
                        "examples": sum(results[task]["examples"] for task in own),
                        "generated": {"average": average_of_tasks(own)},
                    }
        return results

    def _save(self, value: float | None) -> None:
        """Saves a checkpoint; `value`: of the evaluation at this step, if there was one."""
        run = self.run
        if run.step == self._saved:
            return
        with self._instruments.goodput.spend("checkpoint"):
            self._checkpoints.save(run.step, run.state, run.notes(), value, run.best.of)
        self._saved = run.step
        self._instruments.watchdog.alive()
        self._bad.saved()

    def _save_after_data_error(self) -> None:
        """Saves the last step; not with several hosts, since others do not know of the error."""
        run, instruments = self.run, self._instruments
        if jax.process_count() > 1:
            if self._in_flight is not None:  # the others compute this step with this host
                self._finish(self._in_flight)
            return
        self._finish_all()
        if self._bad.in_a_row or run.step in (0, *self._checkpoints.steps()):
            return
        instruments.records.flush(run.position.batches)
        self._save(None)
        self._checkpoints.wait()
        instruments.progress.say(f"the state of step {run.step} is saved")
