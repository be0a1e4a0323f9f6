"""CPU time of the training steps of several configs on one core, and their ratios to the first.

    python benchmarks/step_ratio.py "models/t5_study.gin benchmarks/gin/study.gin" \
        "models/switch_study.gin benchmarks/gin/study.gin" \
        "models/switch_study.gin benchmarks/gin/study.gin NUM_EXPERTS=32"

Each argument is a config: gin files, and NAME=VALUE for macros. The steps take turns in one process
that keeps to one core, and CPU time is counted, so that other work on the machine matters little.
The batches are random tokens without padding. The figures are medians over the turns.
"""

import argparse
import functools
import os
import statistics
import time
from collections.abc import Callable

os.environ["JAX_PLATFORMS"] = "cpu"
if hasattr(os, "sched_setaffinity"):  # before JAX starts a thread for each core
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"  # the demo's mesh has two

import jax  # noqa: E402  after the settings
import numpy as np  # noqa: E402

from switch_jax import gin_config  # noqa: E402
from switch_jax.config import Config  # noqa: E402
from switch_jax.data.packing import empty_batch  # noqa: E402
from switch_jax.optim.optimizer import make_optimizer  # noqa: E402
from switch_jax.partitioning.mesh import make_mesh  # noqa: E402
from switch_jax.partitioning.placing import put_batch  # noqa: E402
from switch_jax.runtime.host_memory import keep_freed_memory  # noqa: E402
from switch_jax.train_step.lowering import lower_train_step, put_signals  # noqa: E402
from switch_jax.train_step.state import abstract_state, init_state, state_of_step  # noqa: E402

STEPS_A_TURN = 5


def config_of(text: str) -> Config:
    """The config of gin files and NAME=VALUE, separated by spaces."""
    words = text.split()
    files = [word for word in words if "=" not in word]
    bindings = [word for word in words if "=" in word]
    names = ("MODEL_DIR", "MIXTURE_OR_TASK_NAME")
    return gin_config.read(files, [*(f"{name}=none" for name in names), *bindings]).config


def prepare(config: Config) -> tuple[str, Callable[[], None]]:
    """Compiles a step; returns its optimised HLO, and what runs some steps and waits for them."""
    mesh = make_mesh(config.mesh)
    rng = np.random.default_rng(0)
    batch = empty_batch(
        config.model.stacks, config.run.batch_size, config.data.task_feature_lengths
    )
    for name, array in batch.items():
        is_tokens = name.endswith("tokens")
        batch[name] = rng.integers(2, 1000, array.shape, np.int32) if is_tokens else array + 1
    with jax.set_mesh(mesh):
        optimizer = make_optimizer(config)
        shapes = abstract_state(config, mesh)
        step = lower_train_step(config, mesh, shapes).compile()
        shardings = jax.tree.map(lambda shape: shape.sharding, shapes)
        init = functools.partial(init_state, config, optimizer)
        state = jax.jit(init, out_shardings=shardings)(jax.random.key(0))
        state = state_of_step(config, state)
        on_devices = put_batch(batch, mesh)
        signals = put_signals(mesh)

    def run() -> None:
        nonlocal state
        for _ in range(STEPS_A_TURN):
            state, metrics = step(state, on_devices, signals)
        jax.block_until_ready(metrics)

    return step.as_text(), run


def cpu_seconds(run: Callable[[], None]) -> float:
    """CPU seconds of a step."""
    start = time.process_time()
    run()
    return (time.process_time() - start) / STEPS_A_TURN


def main() -> None:
    """Prints a line for each config."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="gin files and NAME=VALUE")
    parser.add_argument("--turns", type=int, default=20, help="default: %(default)s")
    args = parser.parse_args()
    keep_freed_memory()  # as `switch_jax train` does
    runs = [prepare(config_of(text))[1] for text in args.configs]
    for run in runs:
        run()  # warm-up
    turns = ([cpu_seconds(run) for run in runs] for _ in range(args.turns))
    seconds = list(zip(*turns, strict=True))
    medians = [statistics.median(values) for values in seconds]
    for text, median in zip(args.configs, medians, strict=True):
        print(f"{1000 * median:8.1f} ms  {median / medians[0]:5.2f}  {text}")


if __name__ == "__main__":
    main()
