"""Which meshes a slice offers, which of them look best, and what to change where none fits."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from switch_jax.config import Config, MeshConfig
from switch_jax.errors import UserError
from switch_jax.hardware import Slice
from switch_jax.partitioning.mesh import batch_shards, make_mesh
from switch_jax.planning.compiler import devices
from switch_jax.planning.plan import Plan, make_plan
from switch_jax.train_step.microbatches import check_batch
from switch_jax.train_step.state import TrainState, abstract_state

# The model axis splits every layer's activations: beyond a board or two it only costs.
MOST_MODEL_WAYS = 16


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A mesh on which the configs divide.

    Attributes:
      mesh: its axes.
      state_bytes: of parameters and optimiser on a chip.
      sent_bytes: an estimate of what a device sends in a step, by which candidates are ordered.
    """

    mesh: MeshConfig
    state_bytes: int
    sent_bytes: float


def candidates(config: Config, hardware: Slice) -> list[Candidate]:
    """All legal meshes: those whose state fits a chip first, then by what devices send."""
    found = [
        candidate
        for mesh in _factorisations(hardware.devices, config.mesh)
        if (candidate := _candidate(dataclasses.replace(config, mesh=mesh), hardware))
    ]
    limit = hardware.generation.hbm_bytes
    return sorted(found, key=lambda c: (c.state_bytes > limit, c.sent_bytes))


def search(
    config: Config, hardware: Slice, tries: int, compiling: Callable[[str], Any]
) -> list[Plan]:
    """Compiles the most promising meshes and ranks them: those that fit, by modelled step time.

    Args:
      config: the run; its mesh is replaced.
      hardware: the slice.
      tries: how many to compile.
      compiling: makes a context in which one is compiled, from its description.

    Raises:
      UserError: no mesh is legal.
    """
    legal = candidates(config, hardware)
    if not legal:
        raise UserError(
            f"the config divides over no mesh of the {hardware.devices} devices of "
            f"{hardware.name}: {_why_not(config, hardware)}"
        )
    plans = []
    for i, candidate in enumerate(legal[:tries], 1):
        mesh = candidate.mesh
        with compiling(
            f"mesh {i} of {min(tries, len(legal))}: {mesh.data} x {mesh.expert} x {mesh.model}"
        ):
            plans.append(make_plan(dataclasses.replace(config, mesh=mesh), hardware))
    return sorted(
        plans, key=lambda p: (not p.fits, p.costs.step_seconds if p.costs else p.hbm_bytes)
    )


def changes(config: Config) -> Iterator[tuple[str, Config]]:
    """Changes of a run that save memory, from what costs least to what costs most.

    Yields:
      The flags of the change, and the changed config.
    """
    flags = ""
    if config.model.remat_policy != "full":
        config = config.replace("model", remat_policy="full")
        flags = "--gin.REMAT_POLICY=full "
        yield flags.strip(), config
    for factor in (2, 4, 8):
        num_microbatches = config.run.num_microbatches * factor
        more = f"{flags}--gin.NUM_MICROBATCHES={num_microbatches}"
        smaller = config.replace("run", num_microbatches=num_microbatches)
        yield more, smaller
    if not config.mesh.fully_sharded_weights:
        sharded = "--gin.FULLY_SHARDED_WEIGHTS=True"
        yield f"{flags}{sharded}", config.replace("mesh", fully_sharded_weights=True)
        yield f"{more} {sharded}", smaller.replace("mesh", fully_sharded_weights=True)


def _factorisations(count: int, mesh: MeshConfig) -> Iterator[MeshConfig]:
    for model in (m for m in range(1, MOST_MODEL_WAYS + 1) if count % m == 0):
        rest = count // model
        for expert in (e for e in range(1, rest + 1) if rest % e == 0):
            yield dataclasses.replace(mesh, data=rest // expert, expert=expert, model=model)


def _candidate(config: Config, hardware: Slice) -> Candidate | None:
    if config.mesh.expert > max(1, config.model.num_experts):
        return None  # legal, but a larger data axis does the same without copies of experts
    try:
        mesh = _checked_mesh(config, hardware)
        state = abstract_state(config, mesh)
    except UserError:
        return None
    state_bytes = hardware.generation.devices_per_chip * _shard_bytes(state)
    return Candidate(config.mesh, state_bytes, _sent_bytes(config, mesh, state))


def _checked_mesh(config: Config, hardware: Slice) -> Mesh:
    """The mesh on the slice; raises UserError where the config does not divide over it."""
    mesh = make_mesh(config.mesh, devices(hardware))
    check_batch(config, mesh.shape)
    return mesh


def _why_not(config: Config, hardware: Slice) -> str:
    try:
        _checked_mesh(config.replace("mesh", data=hardware.devices, expert=1, model=1), hardware)
    except UserError as error:
        return str(error)
    return "the expert axis would have more devices than there are experts"


def _shard_bytes(tree: Any) -> int:
    """Bytes of the arrays' parts on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _sent_bytes(config: Config, mesh: Mesh, state: TrainState) -> float:
    """Gradients over the batch axes, tokens over the expert axis, activations over the model axis.

    In bfloat16, four all-to-alls a Switch layer and eight all-reduces a layer (section 5).
    """
    model, shards = config.model, batch_shards(mesh.shape)
    activations = 2 * config.tokens_per_step / shards * model.embed_dim
    layers = model.num_encoder_layers + model.num_decoder_layers
    sparse = sum(map(len, model.sparse_layers.values()))
    gradients = _shard_bytes(state.parameters) * (1 - 1 / shards)
    remote = 1 - 1 / config.mesh.expert
    exchanged = 2 * sparse * model.train_expert_capacity_factor * activations * remote
    reduced = 4 * layers * activations * (1 - 1 / config.mesh.model)
    return gradients + exchanged + 2 * reduced
