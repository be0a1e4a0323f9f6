"""CPU time and memory of a training step, Switch against the dense model of the same FLOPs.

    python benchmarks/switch_step.py [--steps 10] [--experts 8 32 128]

One core, float32, the same optimiser; the models take turns step by step, so that whatever else the
machine does hits them alike; the figure is the median of process CPU time, as a ratio to the dense
model's. Peak memory is that of a process of its own for each model.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402  after the flags
import numpy as np  # noqa: E402

from switch_jax.model import ModelConfig, logical_axes  # noqa: E402
from switch_jax.training.loss import LossConfig  # noqa: E402
from switch_jax.training.optimizer import OptimizerConfig, make_optimizer  # noqa: E402
from switch_jax.training.state import init_state  # noqa: E402
from switch_jax.training.step import make_train_step  # noqa: E402

BATCH, INPUTS, TARGETS = 8, 128, 32


def model(experts: int) -> ModelConfig:
    """4+4 layers, every second one sparse, capacity factor 1.25, one group for the whole batch."""
    return ModelConfig(
        vocab_size=32128, d_model=256, d_ff=1024, d_kv=32, num_heads=8, num_encoder_layers=4,
        num_decoder_layers=4, num_experts=experts, group_size=BATCH * INPUTS, min_capacity=1,
        dtype="float32",
    )  # fmt: skip


def batch() -> dict[str, np.ndarray]:
    """Random tokens, no padding."""
    rng = np.random.default_rng(0)
    inputs, targets = (BATCH, INPUTS), (BATCH, TARGETS)
    return {
        "encoder_tokens": rng.integers(1, 32000, inputs, dtype=np.int32),
        "encoder_segments": np.ones(inputs, np.int32),
        "decoder_input_tokens": rng.integers(1, 32000, targets, dtype=np.int32),
        "decoder_target_tokens": rng.integers(1, 32000, targets, dtype=np.int32),
        "decoder_segments": np.ones(targets, np.int32),
        "decoder_loss_weights": np.ones(targets, np.float32),
    }


class Runner:
    """A compiled step and its state."""

    def __init__(self, experts: int) -> None:
        config = model(experts)
        optimizer = make_optimizer(OptimizerConfig(), logical_axes(config))
        init = jax.jit(lambda key: init_state(config, optimizer, key))
        self.state = init(jax.random.key(0))
        step = make_train_step(config, LossConfig(), optimizer, num_microbatches=1, seed=0)
        self.step = jax.jit(step, donate_argnums=0)
        self.batch = batch()
        self.run()

    def run(self) -> float:
        """One step; returns its CPU seconds."""
        start = time.process_time()
        self.state, metrics = self.step(self.state, self.batch)
        jax.block_until_ready((self.state, metrics))
        return time.process_time() - start


def peak_mib(experts: int) -> float:
    """Peak memory of a fresh process that runs three steps of the model."""
    command = [sys.executable, __file__, "--memory-of", str(experts)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of is not None:
        runner = Runner(args.memory_of)
        for _ in range(2):
            runner.run()
        # Not getrusage, whose maximum a process inherits from the one that started it.
        status = Path("/proc/self/status").read_text()
        print(int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) / 1024)
        return
    counts = [0, *args.experts]
    runners = {experts: Runner(experts) for experts in counts}
    seconds: dict[int, list[float]] = {experts: [] for experts in counts}
    for _ in range(args.steps):
        for experts, runner in runners.items():
            seconds[experts].append(runner.run())
    del runners
    dense = statistics.median(seconds[0])
    print("| model | CPU ms a step | ratio to dense | peak memory MiB |")
    print("|---|---|---|---|")
    for experts in counts:
        median = statistics.median(seconds[experts])
        name = f"Switch, {experts} experts" if experts else "dense"
        peak = peak_mib(experts)
        print(f"| {name} | {median * 1000:.0f} | {median / dense:.2f} | {peak:.0f} |")


if __name__ == "__main__":
    main()
