"""What a run's bookkeeping costs: of each step, of each record, of each checkpoint.

    python benchmarks/bookkeeping.py [--steps 200]

A small Switch model on one core, in one process. Three take turns of 5 steps: the bare step, which
does no more than loss, gradients and optimiser and returns the loss; the step that runs execute,
with norms, guard and all, by itself; and the training loop that drives that step, with its feed,
metrics, records, watchdog and signals. The data are a few batches, made before and used again.
Steps and records are measured in CPU time (user and system) of the process, all its threads.
"""

import argparse
import contextlib
import itertools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
os.environ["JAX_PLATFORMS"] = "cpu"
if hasattr(os, "sched_setaffinity"):  # before JAX starts a thread for each core
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import jax  # noqa: E402  after the flags
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from switch_jax.checkpointing import Checkpoints  # noqa: E402
from switch_jax.config import (  # noqa: E402
    Config,
    DataConfig,
    LossConfig,
    MeshConfig,
    ModelConfig,
    RunConfig,
)
from switch_jax.data.reading.prefetch import Prefetch  # noqa: E402
from switch_jax.data.train_batches import TrainBatches  # noqa: E402
from switch_jax.model import bind, model_inputs  # noqa: E402
from switch_jax.monitoring import Goodput, MetricWriter, Progress  # noqa: E402
from switch_jax.optim.optimizer import make_optimizer  # noqa: E402
from switch_jax.run_folder import RunFolder  # noqa: E402
from switch_jax.runtime.host_memory import keep_freed_memory  # noqa: E402
from switch_jax.train_step.cross_entropy import token_sums  # noqa: E402
from switch_jax.train_step.state import TrainState, init_state, state_of_step  # noqa: E402
from switch_jax.trainer.device_batches import device_batches  # noqa: E402
from switch_jax.trainer.instruments import Instruments  # noqa: E402
from switch_jax.trainer.loop import TrainingLoop  # noqa: E402
from switch_jax.trainer.records import Records  # noqa: E402
from switch_jax.trainer.signals import StopSignals  # noqa: E402
from switch_jax.trainer.start.prepare import prepare  # noqa: E402
from switch_jax.trainer.start.restore import restore  # noqa: E402
from switch_jax.trainer.train import compile_run  # noqa: E402

BATCH, LENGTHS = 8, {"inputs": 128, "targets": 32}
TURN, LOG_PERIOD = 5, 100
DATA = DataConfig("english_span_corruption", LENGTHS)
MODEL = ModelConfig(
    num_embeddings=1152,
    embed_dim=256,
    mlp_dim=1024,
    head_dim=32,
    num_heads=8,
    num_encoder_layers=2,
    num_decoder_layers=2,
    num_experts=8,
    group_size=512,
    activation_dtype="float32",
)
# 123M parameters: a state of about 500 MB.
LARGE = ModelConfig(
    num_embeddings=32128,
    embed_dim=512,
    mlp_dim=2048,
    head_dim=64,
    num_heads=8,
    num_encoder_layers=4,
    num_decoder_layers=4,
    num_experts=10,
    activation_dtype="float32",
)
# Sparse layers of each stack and experts of Switch-Base and Switch-C.
SIZES = {"this model": None, "Switch-Base": (6, 128), "Switch-C": (15, 2048)}


def bare_step(state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, jax.Array]:
    """Loss, gradients and Adafactor as in `train_step.step`, and nothing else."""
    loss, key = LossConfig(), jax.random.fold_in(jax.random.key(0), state.step)

    def loss_of(parameters: Any) -> jax.Array:
        output = bind(MODEL, parameters)(*model_inputs(MODEL, batch), key=key)
        weights = batch["decoder_loss_weights"]
        sums = token_sums(output.logits, batch["decoder_target_tokens"], weights)
        value = (sums.cross_entropy + loss.z_loss * sums.z) / weights.sum()
        for router in output.routers.values():
            value += loss.aux_loss_factor * router.load_balance_loss.sum()
            value += loss.router_z_loss_factor * router.z_loss.sum()
        return value

    optimizer = make_optimizer(Config(RunConfig("unwritten", 1, BATCH), MODEL, DATA))
    value, gradients = jax.value_and_grad(loss_of)(state.parameters)
    updated, moments = optimizer.step(gradients, state.optimizer, state.parameters, False)
    return TrainState(state.step + 1, updated.parameter, moments, state.guard), value


class Loop(TrainingLoop):
    """The loop of a run, a number of steps at a time."""

    def steps(self, number: int) -> None:
        """Each step is looked at while the next one runs, as `train` does it."""
        for _ in range(number):
            before = self._in_flight
            self._dispatch()
            if before is not None:
                self._finish(before)
        self._finish(self._in_flight)
        self._in_flight = None


def turns_of(step: Callable, state: TrainState, batches: Iterator) -> Callable[[int], None]:
    """Drives a step by itself: each result is waited for while the next step runs."""

    def steps(number: int) -> None:
        nonlocal state
        before = None
        for _ in range(number):
            state, result = step(state, next(batches))
            if before is not None:
                jax.block_until_ready(before)
            before = result
        jax.block_until_ready(state)

    return steps


def copied(state: TrainState) -> TrainState:
    """With memory of its own: steps give theirs away."""
    return jax.tree.map(lambda x: x.copy(), state)


def print_steps(folder: Path, number: int, closing: contextlib.ExitStack) -> Any:
    """The three, in turns; returns a step's metrics."""
    run = RunConfig(
        str(folder), train_steps=10**6, batch_size=BATCH, log_period=LOG_PERIOD, eval_steps=1
    )
    config = Config(run, MODEL, DATA, MeshConfig(data=1))
    prepared = prepare(config)
    abstract = prepared.state
    closing.enter_context(jax.set_mesh(prepared.mesh))
    checkpoints = Checkpoints(RunFolder(folder), keep=1)
    closing.callback(checkpoints.close)
    state = restore(prepared, checkpoints)
    instruments = closing.enter_context(Instruments(prepared.config, RunFolder(folder), 0, ""))
    compiled = closing.enter_context(compile_run(prepared, state, instruments))
    stop = closing.enter_context(StopSignals(prepared.mesh, instruments.profiler.request))
    # The same batches over and over.
    cycle = itertools.cycle(
        list(itertools.islice(TrainBatches(prepared.train_tasks, MODEL.stacks, BATCH), 8))
    )
    compiled = compiled._replace(batches=Prefetch(device_batches(cycle, prepared.mesh)))
    closing.callback(compiled.batches.close)
    driven = Loop(prepared, state, checkpoints, instruments, compiled, stop)

    batches = [driven._batches.get().arrays for _ in range(8)]
    signals = driven._stop.arrays()

    def whole(state: TrainState, *args: Any) -> tuple[TrainState, Any]:
        return driven._train_step(state_of_step(config, state), *args)

    shardings = jax.tree.map(lambda s: s.sharding, abstract)
    jitted = jax.jit(bare_step, donate_argnums=0, out_shardings=(shardings, None))
    bare = jitted.lower(abstract, batches[0]).compile()
    first, loss = bare(copied(driven.run.state), batches[0])
    second, metrics = whole(copied(driven.run.state), batches[0], signals)
    pairs = zip(*map(jax.tree.leaves, (first.parameters, second.parameters)), strict=True)
    apart = max(float(abs(a - b).max()) for a, b in pairs)
    assert apart < 1e-6, f"after one step, parameters are {apart} apart"
    print(f"after one step, parameters are {apart:.1e} apart at most, and losses "
          f"{abs(float(loss - metrics.loss)):.1e}\n")  # fmt: skip

    contenders = {
        "bare step": turns_of(bare, first, itertools.cycle(batches)),
        "step of a run": turns_of(
            lambda state, batch: whole(state, batch, signals), second, itertools.cycle(batches)
        ),
        "training loop": driven.steps,
    }
    spent: dict[str, list[float]] = {name: [] for name in contenders}
    for steps in contenders.values():
        steps(TURN)  # touches the memory; and the loop's records then fall into its turns
    for _ in range(number // TURN):
        for name, steps in contenders.items():
            start = time.process_time()
            steps(TURN)
            spent[name].append(time.process_time() - start)
    print("| | CPU ms a step, median | ratio, median of turns | quartiles | ratio, totals |")
    print("|---|---|---|---|---|")
    base = np.array(spent["bare step"])
    for name, turns in spent.items():
        low, middle, high = np.percentile(np.array(turns) / base, (25, 50, 75))
        print(
            f"| {name} | {statistics.median(turns) / TURN * 1000:.1f} | {middle:.3f} "
            f"| {low:.3f} to {high:.3f} | {sum(turns) / sum(base):.3f} |"
        )
    return metrics


def print_records(folder: Path, metrics: Any) -> None:
    """What one record of 100 steps takes, and what of it goes where."""
    print("\n| CPU ms of 100 steps' record | all | fetching | MetricWriter |")
    print("|---|---|---|---|")
    run = RunConfig(str(folder), train_steps=10**6, batch_size=BATCH)
    times: dict[str, list[float]] = {}

    def timed(name: str, function: Callable) -> Callable:
        def call(*args: Any) -> Any:
            start = time.process_time()
            result = function(*args)
            times.setdefault(name, []).append((time.process_time() - start) * 1000)
            return result

        return call

    for name, size in SIZES.items():
        times.clear()
        model, own = MODEL, metrics
        if size:
            layers, experts = size
            per_expert, per_layer = np.full((layers, experts), 1 / experts), np.zeros(layers)
            filled = jax.tree.map(
                lambda x, e=per_expert, n=per_layer: e if x.ndim == 2 else n, metrics.routers
            )
            own = metrics._replace(routers=filled)
        (folder / name).mkdir()
        writer = MetricWriter(RunFolder(folder / name))
        writer.write = timed("writer", writer.write)  # type: ignore[method-assign]
        progress = Progress(10**6, 0, active=False)
        records = Records(Config(run, model, DATA), writer, progress, Goodput())
        for number in range(5):
            # New arrays each time: one that was fetched keeps what it fetched.
            windows = [[jax.tree.map(jnp.array, own) for _ in range(LOG_PERIOD)] for _ in range(2)]
            jax.block_until_ready(windows)
            for step, each in enumerate(windows[0], start=LOG_PERIOD * number + 1):
                records.add(step, each)
            timed("all", records.flush)(LOG_PERIOD * (number + 1))
            timed("fetching", jax.device_get)(windows[1])
        middle = {key: statistics.median(values) for key, values in times.items()}
        figures = " | ".join(f"{middle[key]:.1f}" for key in ("all", "fetching", "writer"))
        print(f"| {name} | {figures} |", flush=True)
        writer.close()


def print_saves(folder: Path, times: int) -> None:
    """How long `save` holds its caller, against a copy of the state and a whole save."""
    config = Config(RunConfig("unwritten", 1, 1), LARGE, DataConfig("unread", LENGTHS))
    optimizer = make_optimizer(config)
    state = jax.jit(lambda key: init_state(config, optimizer, key))(jax.random.key(0))
    state = jax.block_until_ready(state)
    size = sum(x.nbytes for x in jax.tree.leaves(state))
    checkpoints = Checkpoints(RunFolder(folder), keep=1)
    seconds: list[tuple[float, float, float]] = []
    for number in range(times + 1):
        start = time.perf_counter()
        copies = [np.array(x) for x in jax.tree.leaves(state)]
        copied = time.perf_counter()
        del copies
        begin = time.perf_counter()
        checkpoints.save(number + 1, state, {"position": number}, None)
        held = time.perf_counter()
        checkpoints.wait()
        if number:  # the first starts Orbax's threads
            seconds.append((copied - start, held - begin, time.perf_counter() - begin))
    checkpoints.close()
    print(f"\n| a state of {size / 1e6:.0f} MB | seconds | least to most |\n|---|---|---|")
    names = ("copied with np.array", "`save` holds its caller", "saved: `save` and `wait`")
    for name, column in zip(names, zip(*seconds, strict=True), strict=True):
        spread = f"{min(column):.2f} to {max(column):.2f}"
        print(f"| {name} | {statistics.median(column):.2f} | {spread} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=200, help="measured, of each contender")
    parser.add_argument("--saves", type=int, default=5, help="measured")
    args = parser.parse_args()
    keep_freed_memory()  # as `switch_jax train` does
    folder = Path(tempfile.mkdtemp())
    try:
        with contextlib.ExitStack() as closing:
            metrics = print_steps(folder, args.steps, closing)
            print_records(folder, metrics)
        print_saves(folder / "saves", args.saves)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
