"""The memory that a run takes at least, from its shapes alone, before anything is allocated."""

from switch_jax.config import Config
from switch_jax.metrics.memory import memory_of
from switch_jax.partitioning.placing import device_bytes
from switch_jax.trainer.prepare import Prepared
from switch_jax.units import memory_size


def describe_memory(prepared: Prepared) -> list[str]:
    """What parameters, gradients, optimiser state and teacher take; a warning if it is too much.

    Of the activations, which come in addition, the logits alone are counted, in a warning: those of
    a microbatch are there at once, in float32.
    """
    state, mesh = prepared.state, prepared.mesh
    sizes = {
        "parameters": device_bytes(state.parameters),
        "gradients": device_bytes(state.parameters),
        "optimiser state": device_bytes(state.optimizer),
    }
    if prepared.teacher is not None and prepared.config.teacher_model is not None:
        sizes["teacher"] = device_bytes(prepared.teacher.parameters)
    one = sum(sizes.values())
    parts = ", ".join(f"{name} {memory_size(size)}" for name, size in sizes.items())
    lines = [f"memory of a device without activations: {memory_size(one)} ({parts})"]
    needed, memory = one * mesh.size, memory_of(mesh)
    rows, logits = _rows_at_once(prepared.config), _logits_bytes(prepared.config)
    with_logits = needed - sizes["gradients"] * mesh.size + logits  # they follow the logits
    devices = f" on {mesh.size} devices" if mesh.size > 1 else ""
    problem = f"and here are {memory_size(memory)}: a run here is killed or runs out of memory"
    if needed > memory:
        lines.append(
            f"warning: these alone take {memory_size(needed)}{devices}, {problem}; take fewer "
            "experts (NUM_EXPERTS), a smaller model's file, more devices (MESH_EXPERT), or "
            "FULLY_SHARDED_WEIGHTS = True; `switch_jax plan` says what fits a slice"
        )
    elif with_logits > memory:
        lines.append(
            f"warning: these without gradients, and the logits of {rows} rows "
            f"({memory_size(logits)}), take {memory_size(with_logits)}{devices}, {problem}; write "
            "a smaller BATCH_SIZE or a larger NUM_MICROBATCHES"
        )
    return lines


def _rows_at_once(config: Config) -> int:
    """Rows of a microbatch, whose logits are in memory together."""
    return config.run.batch_size // config.run.num_microbatches


def _logits_bytes(config: Config) -> int:
    """Bytes of the logits that are in memory together: float32 [B, L, V], on all devices."""
    length = config.data.task_feature_lengths["targets"]
    return _rows_at_once(config) * length * config.model.num_embeddings * 4
