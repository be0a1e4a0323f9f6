"""Training steps of a small Switch Transformer: against shipped numbers, and twice."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from switch_jax.config import (
    Config,
    DataConfig,
    LossConfig,
    MeshConfig,
    ModelConfig,
    RunConfig,
)
from switch_jax.data.batch import Batch, empty_batch, write_row
from switch_jax.doctor.checks import Check, Finding, Verdict
from switch_jax.doctor.compare import difference, judged, parts_here
from switch_jax.optim.optimizer import make_optimizer
from switch_jax.partitioning.mesh import DATA, EXPERT, MODEL, batch_shards, make_mesh
from switch_jax.partitioning.placing import put_batch
from switch_jax.train_step.lowering import abstract_signals, lower_train_step
from switch_jax.train_step.state import TrainState, abstract_state, init_state, state_of_step

# Of the first step in float32, whatever the mesh: printed by `python -m tools.doctor_reference`.
REFERENCE = {"loss": 8.007308006286621, "gradient_norm": 6.067276477813721}
# Of a CPU, whose products are in float32: its sums may be in another order.
CPU_TOLERANCE = 1e-4
# Of others, which round the factors of a product, TPUs to bfloat16 and GPUs to TF32: on a CPU with
# all activations in bfloat16 the loss differs by 1.3e-4, and the norm of the gradient by 9e-4.
TOLERANCE = 1e-2
ROWS, INPUTS, TARGETS = 2, 64, 32  # rows that are repeated, until each device has some
_EXPERTS = _HEADS = 8


def config_of(mesh: Mesh, dtype: str) -> Config:
    """A model whose groups are rows, so that repeated rows give the loss of one of each."""
    model = ModelConfig(
        num_embeddings=512,
        embed_dim=128,
        mlp_dim=256,
        head_dim=32,
        num_heads=_HEADS,
        num_encoder_layers=2,
        num_decoder_layers=2,
        num_experts=_EXPERTS,
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


def batch_of(config: Config) -> Batch:
    """Random rows, one full and one with 5 tokens of padding, repeated over the batch."""
    rng = np.random.default_rng(0)
    inputs, targets = (rng.integers(2, 512, (ROWS, length)) for length in (INPUTS, TARGETS))
    full = {"inputs": inputs[0], "targets": targets[0]}
    padded = {"inputs": inputs[1, :-5], "targets": targets[1, :-5]}
    batch = empty_batch(config.run.batch_size, {"inputs": INPUTS, "targets": TARGETS})
    for row in range(config.run.batch_size):
        write_row(batch, row, [padded if row % ROWS else full])
    return batch


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
    compile_seconds: float

    @classmethod
    def of(
        cls,
        config: Config,
        mesh: Mesh,
        rows: Mapping[str, np.ndarray],
        compiler_options: Mapping[str, Any] | None = None,
    ) -> "Step":
        shapes = abstract_state(config, mesh)
        start = time.monotonic()
        compiled = lower_train_step(config, mesh, shapes).compile(dict(compiler_options or {}))
        seconds = time.monotonic() - start
        shardings = jax.tree.map(lambda s: s.sharding, shapes)
        init = jax.jit(
            functools.partial(init_state, config, make_optimizer(config)), out_shardings=shardings
        )
        batch = put_batch(rows, mesh)
        signals = jax.device_put(np.zeros(mesh.size, np.int32), abstract_signals(mesh).sharding)

        def run(state: TrainState | None = None) -> tuple[TrainState, Any]:
            if state is None:
                state = state_of_step(config, init(jax.random.key(0)), free=True)
            return compiled(state, batch, signals)

        return cls(config, run, compiled, seconds)


def step_checks(mesh: Mesh) -> Iterator[Check]:
    """Of a small model, on as much of the mesh's expert and model axes as its sizes divide over."""

    @functools.cache
    def step() -> Step:
        config = config_of(fitting, "float32")
        on_gpus = mesh.devices.flat[0].platform == "gpu"
        options = {"xla_gpu_deterministic_ops": True} if on_gpus else {}  # else sums change order
        return Step.of(config, fitting, batch_of(config), options)

    def with_step(find: Callable[[Step], Finding]) -> Finding:
        with jax.set_mesh(fitting):
            return find(step())

    fitting = _fitting(mesh)
    yield Check("loss and gradient of a step", lambda: with_step(_against_reference))
    yield Check("the same step twice", lambda: with_step(_twice))


def _fitting(mesh: Mesh) -> Mesh:
    """The mesh, or one of the same devices whose axes divide the experts and heads."""
    expert, model = math.gcd(mesh.shape[EXPERT], _EXPERTS), math.gcd(mesh.shape[MODEL], _HEADS)
    if (expert, model) == (mesh.shape[EXPERT], mesh.shape[MODEL]):
        return mesh
    data = mesh.size // (expert * model)
    return make_mesh(MeshConfig(data, expert, model), list(mesh.devices.flat))


def _against_reference(step: Step) -> Finding:
    _, metrics = step.run()
    found = {key: float(getattr(metrics, key)) for key in REFERENCE}
    worst = difference(list(found.values()), list(REFERENCE.values()))
    is_cpu = jax.devices()[0].platform == "cpu"
    tolerance = CPU_TOLERANCE if is_cpu else TOLERANCE
    advice = "this machine computes another loss than others: look at the checks that failed above"
    against = f"the shipped {REFERENCE['loss']:.4f} and {REFERENCE['gradient_norm']:.4f}"
    finding = judged(worst, tolerance, against=against, advice=advice)
    norm = found["gradient_norm"]
    text = f"loss {found['loss']:.4f}, norm of the gradient {norm:.4f}: {finding.text}"
    return dataclasses.replace(finding, text=text, numbers={**found, **finding.numbers})


def _twice(step: Step) -> Finding:
    """Each process compares the bits that its devices hold."""
    first, second = (parts_here(step.run()[0].parameters) for _ in range(2))
    differing = sum(a.tobytes() != b.tobytes() for a, b in zip(first, second, strict=True))
    if differing:
        text = f"{differing} of {len(first)} arrays differ"
        advice = "a run cannot be repeated bit for bit here; a device or its memory may be faulty"
        return Finding(Verdict.FAILED, text, {"arrays": differing}, advice)
    return Finding(Verdict.OK, "gives the same bits")
