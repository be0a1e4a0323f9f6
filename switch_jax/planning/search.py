"""Searches the meshes of a slice for the fastest, and finds changes of a run that save memory."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jax.sharding import Mesh

from switch_jax.config import Config, MeshConfig
from switch_jax.hardware.tpus import Slice
from switch_jax.moe import group_shape
from switch_jax.partitioning.mesh import batch_shards, make_mesh
from switch_jax.partitioning.placing import device_bytes
from switch_jax.planning.compiler import devices
from switch_jax.planning.plan import Plan, make_plan
from switch_jax.train_step.microbatches import check_batch
from switch_jax.train_step.state import TrainState, abstract_model, abstract_state
from switch_jax.utils.errors import UserError

# Every layer communicates over the model axis: a larger one is slower.
MAX_MODEL_AXIS = 16


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A mesh over which the config divides.

    Attributes:
      state_bytes: size of parameters, also the teacher's, and optimiser state on a chip.
      sent_bytes: an estimate of the bytes that a device sends in a step, for the order.
    """

    mesh: MeshConfig
    state_bytes: int
    sent_bytes: float


def candidates(config: Config, hardware: Slice) -> list[Candidate]:
    """Lists all valid meshes: first those whose state fits on a chip, then by the bytes sent."""
    valid = [
        candidate
        for mesh in _factorisations(hardware.devices, config.mesh)
        if (candidate := _candidate(dataclasses.replace(config, mesh=mesh), hardware))
    ]
    limit = hardware.generation.hbm_bytes
    return sorted(valid, key=lambda c: (c.state_bytes > limit, c.sent_bytes))


def search(
    config: Config,
    hardware: Slice,
    max_compiled: int,
    compiling: Callable[[str], Any],
) -> Iterator[Plan]:
    """Compiles the most promising meshes, one after the other, and yields their plans.

    Raises UserError if no mesh is valid. `compiling` returns the context in which a mesh is
    compiled, from its description.
    """
    valid = candidates(config, hardware)
    if not valid:
        raise UserError(
            f"the config divides over no mesh of the {hardware.devices} devices of "
            f"{hardware.name}: {_reason(config, hardware)}"
        )
    compiled = valid[:max_compiled]
    for i, candidate in enumerate(compiled, 1):
        mesh = candidate.mesh
        with compiling(f"mesh {i} of {len(compiled)}: {mesh.data} x {mesh.expert} x {mesh.model}"):
            plan = make_plan(dataclasses.replace(config, mesh=mesh), hardware)
        yield plan


def ranked(plans: Iterable[Plan]) -> list[Plan]:
    """Sorts plans by the model of step time, those that fit first."""
    return sorted(plans, key=lambda p: (0, p.step_seconds) if p.fits else (1, p.hbm_bytes_per_chip))


def changes(
    config: Config, num_batch_shards: int, *, sharding_may_suffice: bool = True
) -> Iterator[tuple[str, Config]]:
    """Changes a run to save memory, each time with the changes before; the cheapest come first.

    Yields the flags and the changed config. `num_batch_shards` is the number of devices along the
    data and expert axes; without `sharding_may_suffice` FULLY_SHARDED_WEIGHTS is not tried alone.
    """
    flags: list[str] = []
    if num_batch_shards > 1 and not config.mesh.fully_sharded_weights:
        config = config.replace("mesh", fully_sharded_weights=True)
        flags = ["--gin.FULLY_SHARDED_WEIGHTS=True"]
        if sharding_may_suffice:
            yield " ".join(flags), config
    if config.model.remat_policy != "full":
        config = config.replace("model", remat_policy="full")
        flags.append("--gin.REMAT_POLICY=full")
        yield " ".join(flags), config
    for factor in (2, 4, 8):
        more_flags, smaller = _more_microbatches(config, factor, num_batch_shards)
        yield " ".join([*flags, *more_flags]), smaller


def _more_microbatches(
    config: Config, factor: int, num_batch_shards: int
) -> tuple[list[str], Config]:
    """Makes `factor` times the microbatches, with groups that fit; returns flags and config."""
    num_microbatches = config.run.num_microbatches * factor
    flags = [f"--gin.NUM_MICROBATCHES={num_microbatches}"]
    changed = config.replace("run", num_microbatches=num_microbatches)
    sizes = _fitting_group_sizes(changed, num_batch_shards)
    if sizes == _group_sizes(config):
        return flags, changed
    # All sizes are set, since in a gin file the decoder's may refer to the encoder's.
    flags += [f"--gin.{field.upper()}={size}" for field, size in sizes.items()]
    return flags, changed.replace("model", **sizes)


def _group_sizes(config: Config) -> dict[str, int]:
    """Returns the group size of each stack, by the field that sets it."""
    return {stack.group_size_field: stack.group_size for stack in config.model.stacks}


def _fitting_group_sizes(config: Config, num_batch_shards: int) -> dict[str, int]:
    """Returns the group sizes, lowered if `microbatches.check_batch` would refuse them."""
    sizes = _group_sizes(config)
    batch_size, parts = config.run.batch_size, config.run.num_microbatches * num_batch_shards
    if batch_size % parts:  # refused, whatever the groups
        return sizes
    for stack in config.model.stacks:
        if not stack.sparse_layers:
            continue
        length = stack.length(config.data.task_feature_lengths)
        # 0: a row is several groups.
        rows = group_shape(batch_size, length, stack.group_size)[1] // length
        if rows and batch_size // parts % rows:
            sizes[stack.group_size_field] = math.gcd(batch_size // parts, rows) * length
    return sizes


def _factorisations(count: int, mesh: MeshConfig) -> Iterator[MeshConfig]:
    for model in (m for m in range(1, MAX_MODEL_AXIS + 1) if count % m == 0):
        rest = count // model
        for expert in (e for e in range(1, rest + 1) if rest % e == 0):
            yield dataclasses.replace(mesh, data=rest // expert, expert=expert, model=model)


def _candidate(config: Config, hardware: Slice) -> Candidate | None:
    teacher = config.teacher_model
    num_experts = max(config.model.num_experts, teacher.num_experts if teacher else 0)
    of_a_slice = hardware.devices // hardware.count // config.mesh.model
    # On several slices the expert axis alone splits a dense model's weights.
    splits_weights = (
        hardware.count > 1
        and num_experts == 0
        and config.mesh.fully_sharded_weights
        and config.mesh.expert == of_a_slice
    )
    if config.mesh.expert > max(1, num_experts) and not splits_weights:
        return None  # a larger data axis is equivalent, without copies of experts
    try:
        mesh = _checked_mesh(config, hardware)
        state = abstract_state(config, mesh)
        learnt_from = abstract_model(teacher, config.mesh, mesh) if teacher else {}
    except UserError:
        return None
    state_bytes = hardware.generation.devices_per_chip * device_bytes((state, learnt_from))
    return Candidate(config.mesh, state_bytes, _sent_bytes(config, mesh, state))


def _checked_mesh(config: Config, hardware: Slice) -> Mesh:
    """Makes the config's mesh on the slice; UserError if the config does not divide over it."""
    mesh = make_mesh(config.mesh, devices(hardware))
    check_batch(config, mesh.shape)
    return mesh


def _reason(config: Config, hardware: Slice) -> str:
    """Says why not even the mesh with only a data axis is valid."""
    try:
        _checked_mesh(config.replace("mesh", data=hardware.devices, expert=1, model=1), hardware)
    except UserError as error:
        return str(error)
    return "the expert axis would have more devices than there are experts"


def _sent_bytes(config: Config, mesh: Mesh, state: TrainState) -> float:
    """Estimates the bytes that a device exchanges in a step.

    They are gradients over the batch axes, tokens over the expert axis, and activations over the
    model axis. Activations are bfloat16, and split over the model axis by their width. A Switch
    layer has four all-to-alls (section 5), and a layer gathers or reduce-scatters its activations
    eight times. A router's logits are summed over the model axis in float32.
    """
    model, shards = config.model, batch_shards(mesh.shape)
    activations = 2 * config.tokens_per_step / shards * model.embed_dim
    layers = sum(stack.num_layers for stack in model.stacks)
    routers = sum(len(stack.routers) for stack in model.stacks)
    gradients = device_bytes(state.parameters) * (1 - 1 / shards)
    remote = 1 - 1 / config.mesh.expert
    expert_bytes = 4 * routers * model.train_expert_capacity_factor * activations * remote
    expert_bytes /= config.mesh.model
    logits = 8 * config.tokens_per_step / shards * model.num_experts
    model_bytes = (8 * layers * activations + routers * logits) * (1 - 1 / config.mesh.model)
    return gradients + expert_bytes + model_bytes
