"""How far plans of CPUs are from what is measured, after `plan --measured`.

    python benchmarks/plan_accuracy.py              # seven minutes on two quiet cores
    python benchmarks/plan_accuracy.py --devices=2  # virtual ones, which exchange tokens

`switch_jax doctor` measures the demo's model on one device, which uses all cores, or on several.
Then the step of other configs is planned with its file, and measured. The parts of the first table
are of the same sizes as those that doctor has seen, or nearly so; those of the second are not. A
shared machine changes its speed within minutes: right before each config the demo's own step is
measured again, and the last column is without what that has changed since doctor.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it loads JAX
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
    then = next(check["numbers"]["seconds"] for check in checks if check["name"] == "step")
    for configs in (NEAR, FAR):
        print("\n| | planned | the machine's change | measured | planned by measured |")
        print("|---|---|---|---|---|", flush=True)
        for label, macros in configs.items():
            _, now = plan_and_measure((), measured)
            planned, seconds = plan_and_measure(macros, measured)
            times = f"{1e3 * planned:.1f} ms | {now / then:.2f} | {1e3 * seconds:.1f} ms"
            print(f"| {label} | {times} | {planned * now / then / seconds:.2f} |", flush=True)


def _keep_freed_memory() -> None:
    """As `train` and `doctor` do, before anything starts threads."""
    from switch_jax.runtime.host_memory import keep_freed_memory

    keep_freed_memory()


def plan_and_measure(macros: Sequence[str], measured: "Measured") -> tuple[float, float]:
    """Seconds of a step of the demo's model with other macros: planned, and measured."""
    import jax

    from switch_jax.doctor.step_time import measure_step
    from switch_jax.gin_config import read
    from switch_jax.hardware import Cpus
    from switch_jax.partitioning.mesh import make_mesh
    from switch_jax.planning.cpu_plan import make_cpu_plan

    config = read(
        FILES, ["MODEL_DIR=runs/none", f"MESH_EXPERT={measured.devices}", *macros], (), ()
    ).config
    cpus = Cpus(f"cpu-{measured.devices}", measured.devices)
    plan = make_cpu_plan(config, cpus, measured)
    with jax.set_mesh(mesh := make_mesh(config.mesh)):
        return plan.step_seconds, measure_step(config, mesh).seconds


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
