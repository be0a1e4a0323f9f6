"""Which meshes a slice offers, which of them look best, and what to change where none fits."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

from switch_jax.errors import UserError
from switch_jax.hardware import Slice
from switch_jax.model import ModelConfig
from switch_jax.partitioning.mesh import MeshConfig, batch_shards, make_mesh
from switch_jax.planning.compiler import devices
from switch_jax.planning.plan import Plan, make_plan
from switch_jax.train_step.state import abstract_state
from switch_jax.train_step.step import check_batch

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


def candidates(hardware: Slice, parts: dict[str, Any]) -> list[Candidate]:
    """All legal meshes: those whose state fits a chip first, then by what devices send."""
    found = [
        c for mesh in _factorisations(hardware.devices, parts["mesh"])
        if (c := _candidate(hardware, mesh, parts))
    ]  # fmt: skip
    limit = hardware.generation.hbm_bytes
    return sorted(found, key=lambda c: (c.state_bytes > limit, c.sent_bytes))


def search(
    hardware: Slice, parts: dict[str, Any], tries: int, compiling: Callable[[str], Any]
) -> list[Plan]:
    """Compiles the most promising meshes and ranks them: those that fit, by modelled step time.

    Args:
      hardware: the slice.
      parts: the configs, by name of `make_plan`'s argument.
      tries: how many to compile.
      compiling: makes a context in which one is compiled, from its description.

    Raises:
      UserError: no mesh is legal.
    """
    legal = candidates(hardware, parts)
    if not legal:
        raise UserError(
            f"the configs divide over no mesh of the {hardware.devices} devices of "
            f"{hardware.name}: {_why_not(hardware, parts)}"
        )
    plans = []
    for i, candidate in enumerate(legal[:tries], 1):
        mesh = candidate.mesh
        with compiling(
            f"mesh {i} of {min(tries, len(legal))}: {mesh.data} x {mesh.expert} x {mesh.model}"
        ):
            plans.append(make_plan(hardware, **{**parts, "mesh": mesh}))
    return sorted(
        plans, key=lambda p: (not p.fits, p.costs.step_seconds if p.costs else p.hbm_bytes)
    )


def changes(parts: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Changes of a run that save memory, each beside those before it: flags, and the new configs.

    From what costs least to what costs most.
    """
    parts, flags = dict(parts), ""
    if parts["model"].remat_policy != "full":
        parts["model"] = dataclasses.replace(parts["model"], remat_policy="full")
        flags += " --gin.REMAT_POLICY=full"
        yield flags.strip(), dict(parts)
    microbatches = parts["run"].num_microbatches
    for factor in (2, 4, 8):
        run = dataclasses.replace(parts["run"], num_microbatches=microbatches * factor)
        more = f"{flags} --gin.NUM_MICROBATCHES={run.num_microbatches}"
        yield more.strip(), {**parts, "run": run}
    if not parts["mesh"].fully_sharded_weights:
        mesh = dataclasses.replace(parts["mesh"], fully_sharded_weights=True)
        flags += " --gin.FULLY_SHARDED_WEIGHTS=True"
        yield flags.strip(), {**parts, "mesh": mesh}
        yield f"{more} --gin.FULLY_SHARDED_WEIGHTS=True".strip(), {
            **parts, "mesh": mesh, "run": run,
        }  # fmt: skip


def _factorisations(count: int, mesh: MeshConfig) -> Iterator[MeshConfig]:
    for model in (m for m in range(1, MOST_MODEL_WAYS + 1) if count % m == 0):
        rest = count // model
        for expert in (e for e in range(1, rest + 1) if rest % e == 0):
            yield dataclasses.replace(mesh, data=rest // expert, expert=expert, model=model)


def _candidate(hardware: Slice, mesh: MeshConfig, parts: dict[str, Any]) -> Candidate | None:
    model: ModelConfig = parts["model"]
    if mesh.expert > max(1, model.num_experts):
        return None  # legal, but a larger data axis does the same without copies of experts
    try:
        laid_out = _check(hardware, mesh, parts)
        state = abstract_state(
            model, parts["optimizer"], laid_out, fully_sharded=mesh.fully_sharded_weights
        )
    except UserError:
        return None
    per_chip = hardware.generation.devices_per_chip
    return Candidate(
        mesh, per_chip * _shard_bytes(state), _sent_bytes(mesh, parts, laid_out, state)
    )


def _check(hardware: Slice, mesh: MeshConfig, parts: dict[str, Any]) -> Any:
    laid_out = make_mesh(mesh, devices(hardware))
    run, lengths = parts["run"], _lengths(parts)
    check_batch(parts["model"], run.batch_size, lengths, run.num_microbatches, laid_out.shape)
    return laid_out


def _why_not(hardware: Slice, parts: dict[str, Any]) -> str:
    mesh = dataclasses.replace(parts["mesh"], data=hardware.devices, expert=1, model=1)
    try:
        _check(hardware, mesh, parts)
    except UserError as error:
        return str(error)
    return "the expert axis would have more devices than there are experts"


def _lengths(parts: dict[str, Any]) -> tuple[int, int]:
    lengths = parts["data"].task_feature_lengths
    return lengths["inputs"], lengths["targets"]


def _shard_bytes(tree: Any) -> int:
    import jax

    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _sent_bytes(mesh: MeshConfig, parts: dict[str, Any], laid_out: Any, state: Any) -> float:
    """Gradients over the batch axes, tokens over the expert axis, activations over the model axis.

    In bfloat16, four all-to-alls a Switch layer and eight all-reduces a layer (section 5).
    """
    model: ModelConfig = parts["model"]
    tokens = parts["run"].batch_size * sum(_lengths(parts)) / batch_shards(laid_out.shape)
    activations = 2 * tokens * model.d_model
    layers = model.num_encoder_layers + model.num_decoder_layers
    sparse = sum(map(len, model.sparse_layers.values()))
    gradients = _shard_bytes(state.parameters) / 2 * 2 * (1 - 1 / batch_shards(laid_out.shape))
    exchanged = 4 * sparse / 2 * model.train_capacity_factor * activations * (1 - 1 / mesh.expert)
    reduced = 2 * 4 * layers / 2 * activations * (1 - 1 / mesh.model)
    return gradients + exchanged + 2 * reduced
