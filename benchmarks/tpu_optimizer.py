"""What each optimiser adds to a training step of T5-Base, from the TPU's own compiler.

    python benchmarks/tpu_optimizer.py

The optimiser's part of the step alone, as one program for 128 v5p chips that all hold the whole
model: norms, a skipped step's choice, update, new parameters. A minute each, Muon some minutes.
"""

import sys

import jax

from switch_jax import gin_config
from switch_jax.config.optimizer import OPTIMIZERS
from switch_jax.hardware.tpus import parse_slice
from switch_jax.model import logical_axes
from switch_jax.optim.apply import sum_of_squares
from switch_jax.optim.optimizer import make_optimizer
from switch_jax.partitioning.compiler_options import compiler_options
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.planning.compiler import Program, compile_program, devices
from switch_jax.planning.plan import costs_of
from switch_jax.train_step.norms import Norms
from switch_jax.train_step.state import abstract_state
from switch_jax.utils.errors import UserError

HARDWARE = parse_slice("v5p-256")
FILES = ["models/t5_base.gin", "runs/pretrain.gin"]
VALUES = [
    "MODEL_DIR=unwritten", "MIXTURE_OR_TASK_NAME=unread", "MESH_DATA=128",
    "FULLY_SHARDED_WEIGHTS=False",
]  # fmt: skip


def row(name: str) -> str:
    """A row of the table."""
    decay = [] if name == "adafactor" else ["WEIGHT_DECAY=0.1"]
    values = [f"OPTIMIZER={name}", "GRADIENT_CLIP_NORM=1.0", *decay]
    config = gin_config.read(FILES, [*VALUES, *values]).config
    mesh, axes = make_mesh(config.mesh, devices(HARDWARE)), logical_axes(config.model)
    optimizer = make_optimizer(config)

    def update(parameters, state, gradients, bad):
        norm = Norms.of(jax.tree.map(sum_of_squares, gradients), axes).all
        updated, state = optimizer.step(gradients, state, parameters, bad | ~(norm < 1e9))
        norms = (Norms.of(squares, axes) for squares in updated[1:])
        return updated.parameter, state, (norm, *norms)

    with jax.set_mesh(mesh):
        state = abstract_state(config, mesh)
        arrays = state.parameters, state.optimizer
        places = jax.tree.map(lambda s: s.sharding, arrays)
        jitted = jax.jit(
            update,
            donate_argnums=(0, 1, 2),
            out_shardings=(*places, None),
            compiler_options=compiler_options(),
        )
        bad = jax.ShapeDtypeStruct((), bool)
        program = compile_program(jitted.lower(*arrays, state.parameters, bad))
    if not isinstance(program, Program):
        sys.exit(program.message)
    cycles = costs_of(program, mesh, HARDWARE).estimated_cycles
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.optimizer))
    return f"| {name} | {cycles / 1e6:.2f}M | {size / 2**30:.2f} |"


if __name__ == "__main__":
    print("| optimiser | cycles | GiB of state |\n|---|---|---|")
    try:
        for each in OPTIMIZERS:
            print(row(each), flush=True)
    except UserError as error:
        raise SystemExit(str(error)) from error
