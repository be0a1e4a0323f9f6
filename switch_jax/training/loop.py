"""The training loop: data in, steps, metrics, evaluation, checkpoints."""

import contextlib
import dataclasses
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from switch_jax.checkpointing import Checkpoints
from switch_jax.data.pipeline import (
    DataConfig,
    check_data,
    check_readable,
    eval_batches,
    eval_tasks,
    train_batches,
    vocabulary_size,
)
from switch_jax.errors import UserError
from switch_jax.metrics import MetricWriter, Progress
from switch_jax.model import ModelConfig, logical_axes
from switch_jax.model.flops import forward_flops, parameter_count
from switch_jax.partitioning.allocator import return_freed_memory
from switch_jax.partitioning.mesh import MeshConfig, batch_sharding, make_mesh
from switch_jax.training.config import RunConfig
from switch_jax.training.loss import LossConfig, TokenSums
from switch_jax.training.lowering import abstract_batch, lower_train_step
from switch_jax.training.optimizer import (
    OptimizerConfig,
    learning_rate_schedule,
    make_optimizer,
)
from switch_jax.training.state import TrainState, abstract_state, init_state
from switch_jax.training.step import Metrics, check_batch, make_eval_step


def train(
    run: RunConfig,
    model: ModelConfig,
    data: DataConfig,
    mesh: MeshConfig,
    optimizer: OptimizerConfig,
    loss: LossConfig,
    config_text: str = "",
) -> TrainState:
    """Trains from the newest checkpoint in the run's folder, or from scratch, to the last step.

    A run that was stopped and started again gives the same parameters, bit for bit on the same
    mesh, as one that was not: the data continue with the very next batch, and noise depends on the
    seed and the step alone.

    Args:
      run: how long, where to, how often.
      model, data, mesh, optimizer, loss: the parts.
      config_text: written to the run's folder as `config.gin`.

    Returns:
      The final state.

    Raises:
      UserError: something in the configs does not fit together, or the folder cannot be written.
    """
    devices = check(run, model, data, mesh, optimizer)
    abstract = abstract_state(model, optimizer, devices, fully_sharded=mesh.fully_sharded_weights)
    model_dir = _make_folder(run.model_dir)
    with jax.set_mesh(devices):
        checkpoints = Checkpoints(model_dir, run.keep_checkpoints)
        writer = MetricWriter(model_dir)
        try:
            state = _restore_or_init(checkpoints, abstract, model, optimizer, run)
            if int(state.step) >= run.train_steps:
                done = f"step {state.step} of {run.train_steps}"
                print(f"{run.model_dir} is at {done}: nothing to do")
                return state
            _write_description(model_dir, run, model, data, devices, config_text)
            return _loop(
                state, checkpoints, writer, abstract, devices, run, model, data, optimizer, loss
            )
        finally:
            checkpoints.close()
            writer.close()


def check(
    run: RunConfig,
    model: ModelConfig,
    data: DataConfig,
    mesh: MeshConfig,
    optimizer: OptimizerConfig,
) -> Mesh:
    """Checks that the parts of a run fit together, before anything is written or compiled.

    Returns:
      The mesh.

    Raises:
      UserError: what does not fit, with the numbers.
    """
    check_data(data)
    eval_tasks(data.mixture_or_task_name)
    check_readable(data)
    devices = make_mesh(mesh)  # starts JAX, with as many CPU devices as the mesh asks for
    if jax.process_count() > 1:
        raise UserError(
            f"{jax.process_count()} processes: training runs in one process, with all its devices"
        )
    lengths = (data.task_feature_lengths["inputs"], data.task_feature_lengths["targets"])
    check_batch(model, run.batch_size, lengths, run.num_microbatches, devices.shape)
    _check_vocabulary(model, data)
    if mesh.fully_sharded_weights and model.remat_policy == "none":
        raise UserError(
            "with REMAT_POLICY = 'none' the gathered weights of all layers are saved for the "
            "backward pass, so FULLY_SHARDED_WEIGHTS = True would save no memory; set REMAT_POLICY "
            "to 'minimal' or 'full'"
        )
    abstract_state(model, optimizer, devices, fully_sharded=mesh.fully_sharded_weights)
    return devices


def _loop(
    state: TrainState,
    checkpoints: Checkpoints,
    writer: MetricWriter,
    abstract: TrainState,
    mesh: Mesh,
    run: RunConfig,
    model: ModelConfig,
    data: DataConfig,
    optimizer: OptimizerConfig,
    loss: LossConfig,
) -> TrainState:
    start = int(state.step)
    progress = Progress(run.train_steps, start)
    if start:
        progress.say(f"continuing from the checkpoint of step {start}")
    progress.say("reading data and compiling")
    batches = train_batches(data, run.batch_size, start_batch=start)
    evaluation = _Evaluation(model, data, run, mesh, abstract)
    train_step = lower_train_step(abstract, mesh, run, model, data, optimizer, loss).compile()
    return_freed_memory()
    clock = _Clock(writer.last_seconds(start))
    window = _Window(writer, progress, model, clock, learning_rate_schedule(optimizer))
    if start == 0:
        with clock.stopped():
            evaluation(state, writer, progress, clock)

    previous: Metrics | None = None
    try:
        for step in range(start + 1, run.train_steps + 1):
            state, metrics = train_step(state, _to_devices(next(batches), mesh))
            # The device has its next step already: waiting for the one before leaves it busy.
            if previous is not None:
                jax.block_until_ready(previous.loss)
                if (step - 1) % run.log_period == 0:
                    window.flush()
            window.add(step, metrics)
            previous = metrics
            progress.advance()
            last = step == run.train_steps
            evaluate = last or step % run.eval_period == 0
            save = last or step % run.checkpoint_period == 0
            if evaluate or save:
                jax.block_until_ready(state)
                window.flush()  # so that a checkpoint never is ahead of the metrics
                with clock.stopped():
                    if save:
                        checkpoints.save(step, state)
                    if evaluate:
                        evaluation(state, writer, progress, clock)
    finally:
        progress.close()
    return state


class _Clock:
    """Seconds spent training; evaluation and checkpoints stop it."""

    def __init__(self, spent: float) -> None:
        self._spent = spent
        self._since: float | None = time.perf_counter()

    def seconds(self) -> float:
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return self._spent + running

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        self._spent, self._since = self.seconds(), None
        yield
        self._since = time.perf_counter()


class _Window:
    """Collects the metrics of the steps between two log records."""

    def __init__(
        self,
        writer: MetricWriter,
        progress: Progress,
        model: ModelConfig,
        clock: _Clock,
        schedule: optax.Schedule,
    ) -> None:
        self._writer, self._progress, self._model, self._clock = writer, progress, model, clock
        self._schedule = schedule
        self._metrics: list[Metrics] = []
        self._step = 0
        self._since = clock.seconds()

    def add(self, step: int, metrics: Metrics) -> None:
        self._step = step
        self._metrics.append(metrics)

    def flush(self) -> None:
        """Writes the means over the steps since the last record, if there were any."""
        if not self._metrics:
            return
        step, window = self._step, jax.device_get(self._metrics)
        self._metrics = []
        now = self._clock.seconds()
        elapsed, self._since = now - self._since, now
        tokens_per_second = sum(float(m.tokens) for m in window) / elapsed
        mean = jax.tree.map(lambda *values: np.mean(values, axis=0).tolist(), *window)
        values = {
            name: getattr(mean, name)
            for name in mean._fields
            if name not in ("tokens", "encoder_router", "decoder_router")
        }
        values["neg_log_perplexity"] = -mean.cross_entropy
        values["learning_rate"] = float(self._schedule(step - 1))
        values["tokens_per_second"] = round(tokens_per_second, 1)
        if self._model.num_experts:
            values["router"] = {
                stack: {
                    "layers": self._model.sparse_layers[stack],
                    "load": router.load,
                    "dropped": router.dropped,
                    "entropy": router.entropy,
                }
                for stack, router in (
                    ("encoder", mean.encoder_router),
                    ("decoder", mean.decoder_router),
                )
            }
        self._writer.write("train", step, now, values)
        self._progress.show(mean.loss, tokens_per_second, elapsed / len(window))


class _Evaluation:
    """Teacher-forced evaluation on every validation set; their batches are read once and kept."""

    def __init__(
        self,
        model: ModelConfig,
        data: DataConfig,
        run: RunConfig,
        mesh: Mesh,
        abstract: TrainState,
    ) -> None:
        self._batches = {
            task: list(
                eval_batches(
                    dataclasses.replace(data, mixture_or_task_name=task),
                    run.batch_size,
                    run.eval_batches,
                )
            )
            for task in eval_tasks(data.mixture_or_task_name)
        }
        self._mesh = mesh
        step = jax.jit(make_eval_step(model))
        shapes = abstract_batch(run, data, mesh)
        self._step = step.lower(abstract.parameters, shapes).compile()

    def __call__(
        self, state: TrainState, writer: MetricWriter, progress: Progress, clock: _Clock
    ) -> None:
        step, seconds = int(state.step), clock.seconds()
        total = TokenSums(*[0.0] * 4)
        for task, batches in self._batches.items():
            sums = [self._step(state.parameters, _to_devices(b, self._mesh)) for b in batches]
            sums = jax.tree.map(lambda *values: float(sum(values)), *jax.device_get(sums))
            total = TokenSums(*(a + b for a, b in zip(total, sums, strict=True)))
            writer.write("eval", step, seconds, {"task": task, **_per_token(sums)})
        if len(self._batches) > 1:
            writer.write("eval", step, seconds, {"task": "all", **_per_token(total)})
        held_out = _per_token(total)["neg_log_perplexity"]
        progress.say(f"step {step}: held-out negative log perplexity {held_out:.4f}")


def _per_token(sums: TokenSums) -> dict[str, float]:
    tokens = max(sums.tokens, 1.0)
    cross_entropy = sums.cross_entropy / tokens
    return {
        "neg_log_perplexity": -cross_entropy,
        "cross_entropy": cross_entropy,
        "accuracy": sums.correct / tokens,
        "tokens": sums.tokens,
    }


def _restore_or_init(
    checkpoints: Checkpoints,
    abstract: TrainState,
    model: ModelConfig,
    optimizer: OptimizerConfig,
    run: RunConfig,
) -> TrainState:
    latest = checkpoints.latest_step()
    if latest is not None:
        return checkpoints.restore(latest, abstract)
    shardings = jax.tree.map(lambda s: s.sharding, abstract)
    transformation = make_optimizer(optimizer, logical_axes(model))
    init = jax.jit(lambda key: init_state(model, transformation, key), out_shardings=shardings)
    # Steps fold their number into the same key: this is one that no run reaches.
    return init(jax.random.fold_in(jax.random.key(run.seed), 2**32 - 1))


def _to_devices(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    return {name: jax.device_put(array, batch_sharding(mesh)) for name, array in batch.items()}


def _check_vocabulary(model: ModelConfig, data: DataConfig) -> None:
    ids = vocabulary_size(data.mixture_or_task_name)
    if ids > model.vocab_size:
        raise UserError(
            f"the vocabulary of {data.mixture_or_task_name} has {ids} ids, but the model's "
            f"embedding has {model.vocab_size} rows; set NUM_EMBEDDINGS to "
            f"{math.ceil(ids / 128) * 128} (the next multiple of 128)"
        )


def _make_folder(name: str) -> Path:
    if "://" in name:
        raise UserError(f"MODEL_DIR {name!r}: give a folder of this machine's file system")
    folder = Path(name).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"MODEL_DIR {name!r} cannot be written: {error.strerror}") from error
    return folder


def _write_description(
    model_dir: Path,
    run: RunConfig,
    model: ModelConfig,
    data: DataConfig,
    mesh: Mesh,
    config_text: str,
) -> None:
    inputs, targets = (data.task_feature_lengths[name] for name in ("inputs", "targets"))
    description = {
        "name": model_dir.name,
        "parameters": parameter_count(model),
        "num_experts": model.num_experts,
        "flops_per_token": forward_flops(model, inputs, targets) / (inputs + targets),
        "mesh": dict(mesh.shape),
        "device": f"{jax.devices()[0].device_kind} x {mesh.size}",
        "train_steps": run.train_steps,
        "batch_tokens": run.batch_size * (inputs + targets),
        "seed": run.seed,
    }
    (model_dir / "run.json").write_text(json.dumps(description, indent=2) + "\n")
    if config_text:
        (model_dir / "config.gin").write_text(config_text)
