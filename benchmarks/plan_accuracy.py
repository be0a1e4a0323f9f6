"""How far plans of CPUs are from what is measured, after `plan --measured`.

    python benchmarks/plan_accuracy.py              # eight minutes on two quiet cores
    python benchmarks/plan_accuracy.py --devices=2  # virtual ones, which exchange tokens

`switch_jax doctor` measures the demo's model on one device, which uses all cores, or on several.
Then the step of other configs is planned with its file, and measured. The parts of the first table
are of the same sizes as those that doctor has seen, or nearly so; those of the second are not. A
shared machine changes its speed within minutes: each config's step takes turns with the demo's own,
and a table says how many times as long it takes, planned and measured (the median over all turns).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # they load JAX
    from switch_jax.config import Config
    from switch_jax.planning.measured import Measured

FILES = ("models/switch_demo.gin", "runs/demo.gin")
NEAR = {
    "32 experts": ("NUM_EXPERTS=32",),
    "capacity factor 2.0": ("TRAIN_EXPERT_CAPACITY_FACTOR=2.0",),
    "two experts a token": ("NUM_SELECTED_EXPERTS=2",),
    "4 + 4 layers": ("NUM_ENCODER_LAYERS=4", "NUM_DECODER_LAYERS=4"),
    "every second layer sparse": ("SPARSE_STEP=2", "NUM_ENCODER_LAYERS=4"),
}
FAR = {
    "four times as wide": ("EMBED_DIM=128", "MLP_DIM=512", "HEAD_DIM=32"),
    "half the batch": ("BATCH_SIZE=128", "DECODER_GROUP_SIZE=512"),
    "rows of 128 + 32 tokens": (
        "TASK_FEATURE_LENGTHS={'inputs': 128, 'targets': 32}",
        "BATCH_SIZE=64",
    ),
}
TURNS, SECONDS = 15, 0.5  # of each of the two steps; of a turn


def main() -> None:
    """Measures, plans, and prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--measured", type=Path, help="a file of doctor's; default: it is run")
    args = parser.parse_args()
    file = args.measured or Path("runs/doctor.json")
    if not args.measured:
        command = [sys.executable, "-m", "switch_jax", "doctor", f"--output={file}"]
        subprocess.run([*command, f"--gin.MESH_EXPERT={args.devices}"], check=True)
    _keep_freed_memory()

    from switch_jax.planning.measured import read_measured

    measured = read_measured(str(file))
    checks = json.loads(file.read_text())["checks"]
    seconds = next(check["numbers"]["seconds"] for check in checks if check["name"] == "step")
    demo = step_timer(demo_config((), measured))
    for configs in (NEAR, FAR):
        print("\n| | planned | measured | planned by measured |\n|---|---|---|---|", flush=True)
        for label, macros in configs.items():
            config = demo_config(macros, measured)
            planned = planned_seconds(config, measured) / seconds
            found = times_as_long(step_timer(config), demo)
            line = f"| {label} | {planned:.2f} | {found:.2f} | {planned / found:.2f} |"
            print(line, flush=True)


def _keep_freed_memory() -> None:
    """As `train` and `doctor` do, before anything starts threads."""
    from switch_jax.runtime.host_memory import keep_freed_memory

    keep_freed_memory()


def demo_config(macros: Sequence[str], measured: "Measured") -> "Config":
    """The demo's config with other macros, on the number of devices that doctor measured."""
    from switch_jax.gin_config import read

    bindings = ["MODEL_DIR=runs/none", f"MESH_EXPERT={measured.devices}", *macros]
    return read(FILES, bindings, (), ()).config


def planned_seconds(config: "Config", measured: "Measured") -> float:
    """Of a step, by `plan --measured`."""
    from switch_jax.hardware import Cpus
    from switch_jax.planning.cpu_plan import make_cpu_plan

    cpus = Cpus(f"cpu-{measured.devices}", measured.devices)
    return make_cpu_plan(config, cpus, measured).step_seconds


def step_timer(config: "Config") -> Callable[[], float]:
    """Compiles the step. What it returns runs it for half a second, and says the seconds of one."""
    import jax

    from switch_jax.doctor.step_time import random_batch
    from switch_jax.doctor.steps import Step
    from switch_jax.partitioning.mesh import make_mesh

    with jax.set_mesh(mesh := make_mesh(config.mesh)):
        step = Step.of(config, mesh, random_batch(config))
        state, _ = jax.block_until_ready(step.run())

    def seconds_of_one() -> float:
        nonlocal state
        start, steps = time.perf_counter(), 0
        while time.perf_counter() - start < SECONDS:
            state, _ = jax.block_until_ready(step.run(state))
            steps += 1
        return (time.perf_counter() - start) / steps

    return seconds_of_one


def times_as_long(timer: Callable[[], float], other: Callable[[], float]) -> float:
    """How many times as long a step takes as another one, which take turns."""
    timer()  # the first steps are slower
    return statistics.median(timer() / other() for _ in range(TURNS))


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
