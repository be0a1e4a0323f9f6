"""The training loop: data in, steps, metrics, evaluation, checkpoints; and what interrupts it."""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from switch_jax.checkpointing import Checkpoints, RunLock
from switch_jax.config import RunConfig
from switch_jax.data.batch import empty_batch
from switch_jax.data.config import DataConfig
from switch_jax.data.position import Position
from switch_jax.data.prefetch import Prefetch
from switch_jax.data.train_batches import TrainBatches
from switch_jax.errors import UserError
from switch_jax.metrics import Goodput, MetricWriter, Profiler, Progress, Watchdog
from switch_jax.model import ModelConfig
from switch_jax.optim.optimizer import OptimizerConfig, learning_rate_schedule
from switch_jax.partitioning.mesh import MeshConfig
from switch_jax.runtime.host_memory import return_freed_memory
from switch_jax.runtime.processes import agreed, gather, is_first, meet, on_first
from switch_jax.train_step.bad_step_guard import Guard, GuardConfig, init_guard
from switch_jax.train_step.loss import LossConfig
from switch_jax.train_step.lowering import lower_train_step
from switch_jax.train_step.state import TrainState, abstract_state
from switch_jax.train_step.step import NO_STEP, Metrics
from switch_jax.trainer.announcement import announcement
from switch_jax.trainer.bad_steps import BadSteps
from switch_jax.trainer.checks import check
from switch_jax.trainer.device_batches import Fed, feed, rows_here, to_devices
from switch_jax.trainer.evaluation import Best, Evaluation, metric_of
from switch_jax.trainer.folder import make_folder, write_description
from switch_jax.trainer.records import Records, training_seconds
from switch_jax.trainer.signals import NONE, Stopped, StopSignals
from switch_jax.trainer.status_file import Life
from switch_jax.trainer.warm_start import initial_checkpoint, initial_state

# Seconds to wait for data before asking whether the run is to stop.
_PATIENCE = 1.0


def train(
    run: RunConfig,
    model: ModelConfig,
    data: DataConfig,
    mesh: MeshConfig,
    optimizer: OptimizerConfig,
    loss: LossConfig,
    guard: GuardConfig = GuardConfig(),  # noqa: B008  frozen
    config_text: str = "",
) -> TrainState:
    """Trains from the newest checkpoint in the run's folder, or from the start, to the last step.

    A run that was stopped and started again gives the same parameters, bit for bit on the same
    mesh, as one that was not: the data continue with the very next batch, whatever hosts and
    devices there are now, and noise depends on the seed and the step alone. With several processes
    all of them call this.

    Args:
      run: how long, where to, how often.
      model, data, mesh, optimizer, loss: the parts.
      guard: what becomes of bad steps.
      config_text: written to the run's folder as `config.gin`.

    Returns:
      The final state.

    Raises:
      UserError: something in the configs does not fit together, the folder is in use or cannot be
        written, or bad steps would not end.
      Stopped: SIGTERM, SIGHUP or SIGINT came; the state is saved.
    """
    devices = check(run, model, data, mesh, optimizer)
    abstract = abstract_state(
        model, optimizer, devices, guard, fully_sharded=mesh.fully_sharded_weights
    )
    start = initial_checkpoint(run, abstract.parameters)
    model_dir = agreed(lambda: make_folder(run.model_dir))
    with contextlib.ExitStack() as closing, jax.set_mesh(devices):
        lock = on_first(lambda: RunLock(model_dir))
        if lock is not None:
            closing.callback(lock.close)
        life = closing.enter_context(agreed(lambda: Life(model_dir, active=is_first())))
        kept = (run.keep_checkpoints, run.keep_best, run.keep_set_aside)
        checkpoints = Checkpoints(model_dir, *kept)
        closing.push(_closed_by(checkpoints.close))
        parts = _Parts(run, model, data, devices, optimizer, loss, guard, abstract, start)
        loop = _Loop(parts, checkpoints, model_dir)
        if loop.is_over():
            print(f"{run.model_dir} is at step {loop.step} of {run.train_steps}: nothing to do")
            return loop.state
        described = (model_dir, run, model, data, devices, config_text, start)
        on_first(lambda: write_description(*described))
        writer = agreed(
            lambda: MetricWriter(model_dir, run.wandb_project, config_text, active=is_first())
        )
        closing.push(_closed_by(writer.close))
        loop.open(writer, closing)
        life.running()
        return loop.run()


class _Parts(NamedTuple):
    """What a run is made of; `start`: the checkpoint that it starts from, see `initial`."""

    run: RunConfig
    model: ModelConfig
    data: DataConfig
    mesh: Mesh
    optimizer: OptimizerConfig
    loss: LossConfig
    guard: GuardConfig
    abstract: TrainState
    start: Path | None


class _Done(NamedTuple):
    """A step that was given to the devices: its number, its metrics to come, its batch."""

    step: int
    metrics: Metrics
    fed: Fed


class _Loop:
    """The run from its newest checkpoint on."""

    def __init__(self, parts: _Parts, checkpoints: Checkpoints, model_dir: Path) -> None:
        self._parts, self._checkpoints, self._model_dir = parts, checkpoints, model_dir
        self._best, self._bad = Best(), BadSteps(parts.guard, model_dir)
        self.step: int
        self.state: Any
        self._position: Position
        self._saved: int
        self._restore()
        self._signal = NONE
        self._without_data = self._undone = False

    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        run = self._parts.run
        return self.step >= run.train_steps or self._stops_early()

    def open(self, writer: MetricWriter, closing: contextlib.ExitStack) -> None:
        """Compiles, and starts reading data; `closing` ends what runs beside the loop."""
        run, model, data, mesh, optimizer, loss, guard, abstract, start = self._parts
        self._writer = writer
        self._progress = Progress(run.train_steps, self.step, active=is_first())
        closing.callback(self._progress.close)
        for line in announcement(run, model, data, mesh):
            self._progress.say(line)
        last = writer.last_record("train", self.step)
        self._goodput = Goodput(last and last.get("spent"))
        if self.step:
            self._progress.say(f"continuing from the checkpoint of step {self.step}")
            if self._position.moved:
                self._progress.say(
                    "it was saved by a version of switch_jax that read the data in another order: "
                    "each stream goes on at the beginning of its next epoch, in the order of now"
                )
        elif start:
            self._progress.say(f"starting from the parameters of {start}")
        self._progress.say("reading data and compiling")
        with self._goodput.spend("compile"):
            self._evaluation = Evaluation(model, data, run, mesh, abstract.parameters)
            self._feed = self._open_feed()
            closing.callback(self._feed.close)
            self._train_step = lower_train_step(
                abstract, mesh, run, model, data, optimizer, loss, guard
            ).compile()
            meet("compiled")
        return_freed_memory()
        schedule = learning_rate_schedule(optimizer)
        self._records = Records(writer, self._progress, self._goodput, run, model, data, schedule)
        self._profiler = Profiler(self._model_dir / "tensorboard", run.profile_steps)
        closing.callback(self._profiler.close)
        stacks = self._model_dir / f"hanging_process_{jax.process_index()}.txt"
        self._watchdog = closing.enter_context(Watchdog(run.watchdog_seconds, stacks))
        self._stop = closing.enter_context(StopSignals(mesh, self._profiler.request))

    def run(self) -> TrainState:
        """Trains to the end."""
        run = self._parts.run
        if self.step == 0:
            self._evaluate()
        done: _Done | None = None
        while not self.is_over():
            try:
                before, done = done, self._next_step()
            except UserError:  # of the data
                self._save_before_the_end(done)
                raise
            # The device has its next step already: waiting for the one before leaves it busy.
            if before is not None:
                self._look_at(before)
            last = self.step == run.train_steps
            evaluate = last or self.step % run.eval_period == 0
            save = last or (self.step % run.checkpoint_period == 0 and self._bad.may_save())
            if not (evaluate or save or self._signal or self._bad.too_many()):
                continue
            self._look_at(done)  # so that a checkpoint never is ahead of the metrics
            done = None
            if self._bad.too_many():
                self._roll_back()
                continue
            self._records.flush(self._position.batches)
            value = self._evaluate() if evaluate and not self._undone else None
            if save or self._signal or self._stops_early():
                self._save(value)
            if self._signal:
                self._checkpoints.wait()
                raise Stopped(self._signal, self.step)
        if self._stops_early():
            self._progress.say(f"{self._best.in_words(run.best_metric)}: stopping early")
        self._checkpoints.wait()
        return self.state

    def _next_step(self) -> _Done:
        """Gives the devices one more step."""
        with self._goodput.spend("data"):
            fed = self._next_batch()
        self.step += 1
        self._watchdog.alive(f"step {self.step}")
        self._profiler.before(self.step)
        with self._goodput.spend("step"), self._profiler.annotate(self.step):
            self.state, metrics = self._train_step(
                self.state, fed.arrays, self._stop.array(no_step=self._without_data)
            )
        trace = self._profiler.after(self.step, metrics)
        if trace:
            self._progress.say(trace)
        self._progress.advance()
        return _Done(self.step, metrics, fed)

    def _next_batch(self) -> Fed:
        """Waits for data, or for a signal to stop without them: then it is padding from then on.

        The other hosts may have begun the step, and wait for this one to take part. With what
        `StopSignals` has for it the step changes nothing, on any host.
        """
        while not self._without_data:
            try:
                return self._feed.get(_PATIENCE)
            except TimeoutError:
                self._without_data = self._stop.is_wanted()
        run, data = self._parts.run, self._parts.data
        padding = empty_batch(run.batch_size, data.task_feature_lengths)
        return Fed(to_devices(padding, self._parts.mesh), padding, self._position)

    def _look_at(self, done: _Done) -> None:
        """Waits for a step, and takes in what it says."""
        step, metrics, fed = done
        with self._goodput.spend("step"):
            skipped, in_a_row, signal = jax.device_get(
                (metrics.skipped, metrics.bad_in_a_row, metrics.signal)
            )
        self._signal = max(self._signal, int(signal) % NO_STEP)
        if signal >= NO_STEP:  # a host had no data: it is as if this step had not been
            self.step -= 1
            self._undone = True
            return
        self._bad.in_a_row = int(in_a_row)
        self._position = fed.position
        self._records.add(step, metrics)
        if skipped:
            text, values = self._bad.describe(step, metrics, fed)
            self._progress.say(text)
            self._write("skipped", step, values)
        if step % self._parts.run.log_period == 0:
            self._records.flush(fed.position.batches)

    def _roll_back(self) -> None:
        """To the last checkpoint before the bad steps, with the data moved on."""
        in_a_row, step = self._bad.in_a_row, self.step
        bad = self._bad.in_words(step)
        self._bad.check_may_go_back(step)
        self._write("rollback", step, {"bad_steps": in_a_row})
        with self._goodput.spend("checkpoint"):
            position, self.state = self._position, None  # there may be no room for two states
            self._restore(last=step - in_a_row)
            self._position = position
            self._bad.went_back()
            # The checkpoint goes with these data from now on, also if the run ends before the next.
            if self.step in self._checkpoints.steps():
                self._checkpoints.amend(self.step, self._notes())
            else:
                self._checkpoints.save(self.step, self.state, self._notes(), None)
        self._progress.back_to(self.step)
        self._progress.say(f"{bad}: back to step {self.step}, and on with new data")

    def _evaluate(self) -> float:
        """Evaluates; returns what the best are chosen by."""
        with self._goodput.spend("eval"):
            results = self._evaluation(self.state.parameters)
        self._watchdog.alive(f"evaluation at step {self.step}")
        for task, values in results.items():
            self._write("eval", self.step, {"task": task, **values})
        held_out = list(results.values())[-1]["neg_log_perplexity"]
        self._progress.say(f"step {self.step}: held-out negative log perplexity {held_out:.4f}")
        value = metric_of(results, self._parts.run.best_metric)
        self._best.update(self.step, value)
        return value

    def _write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Writes a record; see `MetricWriter`."""
        self._writer.write(kind, step, training_seconds(self._goodput.seconds()), values)

    def _stops_early(self) -> bool:
        patience = self._parts.run.early_stopping_evals
        return patience is not None and self._best.since >= patience

    def _save(self, value: float | None) -> None:
        if self.step == self._saved:
            return
        with self._goodput.spend("checkpoint"):
            self._checkpoints.save(self.step, self.state, self._notes(), value)
        self._saved = self.step
        self._watchdog.alive(f"checkpoint of step {self.step}")
        self._bad.saved()

    def _save_before_the_end(self, done: _Done | None) -> None:
        """Saves the last step where the data have ended, unless other hosts would have to join."""
        if done is not None:
            self._look_at(done)
        saved = self.step in (0, *self._checkpoints.steps())
        if jax.process_count() > 1 or self._bad.in_a_row or saved:
            return
        self._records.flush(self._position.batches)
        self._save(None)
        self._checkpoints.wait()
        self._progress.say(f"the state of step {self.step} is saved")

    def _notes(self) -> dict[str, Any]:
        """What else a checkpoint needs; every process calls it, and has its part in it."""
        parts = gather(self._position.as_json())
        return {
            "position": Position.from_json(parts).as_json(),
            "best": self._best.as_json(),
        }

    def _restore(self, last: int | None = None) -> None:
        """State, step and position of the newest checkpoint, or of a fresh run."""
        restored = self._checkpoints.restore(
            self._parts.abstract, last, {"guard": self._fresh_guard}
        )
        if restored is None:
            run, model, _, _, optimizer, _, guard, abstract, checkpoint = self._parts
            self.state = initial_state(run, model, optimizer, guard, abstract, checkpoint)
            self.step, self._position, self._best = 0, Position(0, {}), Best()
            self._saved = 0  # there is nothing to save
            return
        self.step, self.state = restored.step, restored.state
        self._saved = self.step
        self._position = Position.from_json([restored.notes["position"]])
        self._best = Best(**restored.notes["best"])
        streams, wanted = len(self._position.streams), self._parts.data.num_streams
        if streams != wanted:
            raise UserError(
                f"DATA_STREAMS is {wanted}, but the checkpoint of step {self.step} was made with "
                f"{streams}: write --gin.DATA_STREAMS={streams}; it fixes the order of the data"
            )

    def _fresh_guard(self) -> Guard:
        """What a checkpoint lacks of it: one with another SPIKE_WINDOW, or from earlier code.

        There the guard had `history`, the loss and norm themselves, in the place of `recent`, and
        `skipped`. It goes on without limits, until it has seen enough steps.
        """
        shardings = jax.tree.map(lambda s: s.sharding, self._parts.abstract.guard)
        return jax.jit(lambda: init_guard(self._parts.guard), out_shardings=shardings)()

    def _open_feed(self) -> Prefetch[Fed]:
        """Batches from the position on, made and put on the devices ahead of the loop."""
        data, mesh, size = self._parts.data, self._parts.mesh, self._parts.run.batch_size
        batches = TrainBatches(data, size, self._position, rows_here(mesh, size))
        return Prefetch(feed(batches, mesh))


def _closed_by(close: Callable[[], None]) -> Callable[..., None]:
    """For `ExitStack.push`: what goes wrong in closing does not hide what went wrong before."""

    def exit(kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            close()
        except UserError as second:
            if error is None:
                raise
            print(f"switch_jax train: and as the run was closed: {second}", file=sys.stderr)

    return exit
