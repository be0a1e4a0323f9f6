"""Training steps of a small Switch Transformer: against shipped numbers, twice, and saved."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from switch_jax.checkpointing import Checkpoints
from switch_jax.config import (
    Config,
    DataConfig,
    LossConfig,
    MeshConfig,
    ModelConfig,
    RunConfig,
)
from switch_jax.doctor.checks import Check, Finding, Verdict
from switch_jax.doctor.compare import difference, judged
from switch_jax.optim.optimizer import make_optimizer
from switch_jax.partitioning.mesh import DATA, EXPERT, MODEL, batch_shards
from switch_jax.partitioning.placing import device_bytes, put_batch
from switch_jax.run_folder import RunFolder
from switch_jax.train_step.lowering import abstract_signals, lower_train_step
from switch_jax.train_step.state import TrainState, abstract_state, init_state, state_of_step

# Of the first step in float32, whatever the mesh: printed by `python -m tools.doctor_reference`.
REFERENCE = {"loss": 0.0, "gradient_norm": 0.0}
ROWS, INPUTS, TARGETS = 2, 64, 32  # rows that are repeated, until each device has some


def config_of(mesh: Mesh, dtype: str) -> Config:
    """A model whose groups are rows, so that repeated rows give the loss of one of each."""
    model = ModelConfig(
        num_embeddings=512,
        embed_dim=128,
        mlp_dim=256,
        head_dim=32,
        num_heads=8,
        num_encoder_layers=2,
        num_decoder_layers=2,
        num_experts=8,
        jitter_noise=0.0,  # it is another one in each row
        group_size=INPUTS,
        decoder_group_size=TARGETS,
        activation_dtype=dtype,
    )
    return Config(
        run=RunConfig("doctor", 1, ROWS * batch_shards(mesh.shape)),
        model=model,
        data=DataConfig("none", {"inputs": INPUTS, "targets": TARGETS}),
        mesh=MeshConfig(mesh.shape[DATA], mesh.shape[EXPERT], mesh.shape[MODEL]),
        loss=LossConfig(aux_loss_factor=0.01, router_z_loss_factor=0.001),
    )


def batch_of(config: Config) -> dict[str, np.ndarray]:
    """Random rows with padding, repeated over the batch."""
    rng = np.random.default_rng(0)
    repeats = config.run.batch_size // ROWS

    def tokens(length: int) -> tuple[np.ndarray, np.ndarray]:
        is_real = np.arange(length) < np.array([[length], [length - 5]])  # [ROWS, length]
        return rng.integers(2, 512, (ROWS, length)) * is_real, is_real

    (inputs, inputs_real), (targets, targets_real) = tokens(INPUTS), tokens(TARGETS)
    rows = {
        "encoder_input_tokens": inputs,
        "encoder_segment_ids": inputs_real,
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets,
        "decoder_segment_ids": targets_real,
        "decoder_loss_weights": targets_real,
    }
    floats = {"decoder_loss_weights": np.float32}
    return {
        name: np.tile(array, (repeats, 1)).astype(floats.get(name, np.int32))
        for name, array in rows.items()
    }


@dataclasses.dataclass
class Step:
    """A compiled step, on a mesh that is that of `jax.set_mesh`.

    Attributes:
      config: of the run.
      run: one step, of the fresh state or of the one that the step before has given.
      compiled: the program.
      compile_seconds: how long it took to compile.
    """

    config: Config
    run: Callable[..., tuple[TrainState, Any]]
    compiled: jax.stages.Compiled
    fresh: Callable[[], TrainState]
    shapes: TrainState
    compile_seconds: float

    @classmethod
    def of(cls, config: Config, mesh: Mesh, rows: Mapping[str, np.ndarray]) -> "Step":
        shapes = abstract_state(config, mesh)
        start = time.monotonic()
        compiled = lower_train_step(config, mesh, shapes).compile()
        seconds = time.monotonic() - start
        shardings = jax.tree.map(lambda s: s.sharding, shapes)
        init = jax.jit(
            functools.partial(init_state, config, make_optimizer(config)), out_shardings=shardings
        )
        batch = put_batch(rows, mesh)
        signals = jax.device_put(np.zeros(mesh.size, np.int32), abstract_signals(mesh).sharding)

        def fresh() -> TrainState:
            return init(jax.random.key(0))

        def run(state: TrainState | None = None) -> tuple[TrainState, Any]:
            if state is None:
                state = state_of_step(config, fresh(), free=True)
            return compiled(state, batch, signals)

        return cls(config, run, compiled, fresh, shapes, seconds)


def step_checks(mesh: Mesh, folder: epath.Path | None) -> Iterator[Check]:
    """To be run within `jax.set_mesh`.

    Args:
      mesh: the devices.
      folder: where a checkpoint is written and removed again; None: none is.
    """
    config = config_of(mesh, "float32")
    step = functools.cache(lambda: Step.of(config, mesh, batch_of(config)))
    yield Check("loss and gradient of a step", lambda: _against_reference(step()))
    yield Check("the same step twice", lambda: _twice(step()))
    if folder is not None:
        yield Check("a checkpoint", lambda: _checkpoint(step(), folder))


def _against_reference(step: Step) -> Finding:
    _, metrics = jax.device_get(step.run())
    found = {name: float(getattr(metrics, name)) for name in REFERENCE}
    worst = difference(list(found.values()), list(REFERENCE.values()))
    advice = "this machine computes another loss than others: look at the checks that failed above"
    return judged(
        "loss and gradient of a step", worst, 1e-2, against="the shipped numbers", advice=advice
    )


def _twice(step: Step) -> Finding:
    name = "the same step twice"
    first, second = jax.device_get((step.run()[0].parameters, step.run()[0].parameters))
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    differing = sum(a.tobytes() != b.tobytes() for a, b in pairs)
    if differing:
        text = f"{differing} of {len(jax.tree.leaves(first))} arrays differ"
        advice = "a run cannot be repeated bit for bit here; a device or its memory may be faulty"
        return Finding(name, Verdict.FAILED, text, {"arrays": differing}, advice)
    return Finding(name, Verdict.OK, "gives the same bits")


def _checkpoint(step: Step, folder: epath.Path) -> Finding:
    """Saved, and restored onto the mesh."""
    name = "a checkpoint"
    state = step.fresh()
    before = jax.device_get(state)
    place = RunFolder(folder)
    checkpoints = Checkpoints(place, 1)
    try:
        start = time.monotonic()
        checkpoints.save(1, state, {}, None)
        checkpoints.wait()
        saved = time.monotonic() - start
        start = time.monotonic()
        restored = checkpoints.restore(step.shapes)
        read = time.monotonic() - start
    finally:
        checkpoints.close()
        folder.rmtree()
    if restored is None or difference(jax.device_get(restored.state), before) > 0:
        advice = f"do not keep runs in {folder.parent}: what was read is not what was written"
        return Finding(name, Verdict.FAILED, "comes back with other numbers", {}, advice)
    size = device_bytes(state)
    numbers = {"bytes": size, "save_seconds": saved, "restore_seconds": read}
    text = f"comes back bit for bit; saved in {saved:.1f} s, restored in {read:.1f} s"
    return Finding(name, Verdict.OK, text, numbers)
