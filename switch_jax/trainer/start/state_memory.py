"""The memory that a run takes at least, from its shapes alone, before anything is allocated."""

from switch_jax.monitoring.memory import mesh_memory
from switch_jax.partitioning.placing import device_bytes
from switch_jax.trainer.start.prepare import Prepared
from switch_jax.utils.units import memory_size


def describe_memory(prepared: Prepared) -> list[str]:
    """What parameters, gradients, optimiser state and teacher take; a warning if it is too much.

    Of activations, only the logits are counted: float32 [B, L, V] of a microbatch, on all devices.
    """
    state, config, devices = prepared.state, prepared.config, prepared.mesh.size
    sizes = {
        "parameters": device_bytes(state.parameters),
        "gradients": device_bytes(state.parameters),
        "optimiser state": device_bytes(state.optimizer),
    }
    if prepared.teacher is not None and config.teacher_model is not None:
        sizes["teacher"] = device_bytes(prepared.teacher.parameters)
    one, memory = sum(sizes.values()), mesh_memory(prepared.mesh)
    parts = ", ".join(f"{name} {memory_size(size)}" for name, size in sizes.items())
    lines = [f"memory of a device without activations: {memory_size(one)} ({parts})"]
    rows = config.run.batch_size // config.run.num_microbatches
    length = config.model.stacks[-1].length(config.data.task_feature_lengths)
    logits = rows * length * config.model.num_embeddings * 4
    without_gradients = (one - sizes["gradients"]) * devices  # which follow the logits
    for what, needed in (
        ("these", one * devices),
        (
            f"these without gradients, and the logits ({memory_size(logits)}) of {rows} rows, "
            "BATCH_SIZE / NUM_MICROBATCHES,",
            without_gradients + logits,
        ),
    ):
        if needed > memory:
            lines.append(
                f"warning: {what} take {memory_size(needed)}, and here are {memory_size(memory)}: "
                "a run here is killed or runs out of memory"
            )
            break
    return lines
