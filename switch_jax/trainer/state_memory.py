"""The memory that a run's state takes, from its shapes alone, before anything is allocated."""

from switch_jax.hardware import GIB
from switch_jax.metrics.memory import memory_of
from switch_jax.partitioning.placing import device_bytes
from switch_jax.trainer.prepare import Prepared


def describe_memory(prepared: Prepared) -> list[str]:
    """What parameters, gradients, optimiser state and teacher take; a warning if it is too much.

    All processes must call it together. Activations, which come in addition, are not counted.
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
    parts = ", ".join(f"{name} {_size(size)}" for name, size in sizes.items())
    lines = [f"memory of a device without activations: {_size(one)} ({parts})"]
    needed, memory = one * mesh.size, memory_of(mesh)
    if needed > memory:
        on_all = f"{_size(needed)} on {mesh.size} devices" if mesh.size > 1 else _size(needed)
        lines.append(
            f"warning: parameters, gradients and optimiser state alone take {on_all}, and there "
            f"are {_size(memory)}: the run will be killed or run out of memory; take fewer experts "
            "(NUM_EXPERTS), a smaller model's file, more devices (MESH_EXPERT), or "
            "FULLY_SHARDED_WEIGHTS = True with REMAT_POLICY = 'minimal'; `switch_jax plan` says "
            "what fits a slice"
        )
    return lines


def _size(number: int) -> str:
    return f"{number / GIB:.3g} GiB" if number >= GIB else f"{number / 2**20:.3g} MiB"
