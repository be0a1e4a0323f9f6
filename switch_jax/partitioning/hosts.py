"""The processes of a run: how they find each other, and what all of them must know alike."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from switch_jax.errors import UserError
from switch_jax.partitioning.mesh import offer_virtual_cpus

Result = TypeVar("Result")

# Seconds after which the others give up on a process that is gone.
_HEARTBEAT_TIMEOUT = 100


def connect(
    coordinator_address: str | None,
    process_count: int | None,
    process_index: int | None,
    local_cpu_devices: int | None = None,
) -> None:
    """Joins the other processes; to be called before anything else asks JAX for its devices.

    Args:
      coordinator_address: host:port of process 0. None = found as `jax.distributed.initialize`
        does: on Cloud TPU, GKE, Slurm, Open MPI.
      process_count, process_index: likewise.
      local_cpu_devices: virtual CPU devices of this process, where there are only CPUs.

    Raises:
      UserError: the others cannot be found or reached.
    """
    given = (coordinator_address, process_count, process_index)
    if None in given and given != (None, None, None):
        raise UserError(
            "--coordinator_address, --process_count and --process_index belong together: give all "
            "three, or --multihost alone where the platform knows them"
        )
    if process_count is not None and not 0 <= (process_index or 0) < process_count:
        raise UserError(
            f"--process_index={process_index}: write a number from 0 to {process_count - 1}, "
            "another one for each process"
        )
    if local_cpu_devices:
        offer_virtual_cpus(local_cpu_devices)
    # Its handler of SIGTERM would take the place of ours.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator_address,
            process_count,
            process_index,
            heartbeat_timeout_seconds=_HEARTBEAT_TIMEOUT,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"cannot join the other processes: {reason}") from error


def is_first() -> bool:
    """Whether this is the one process that writes what is written once."""
    return jax.process_index() == 0


def gather(value: Any) -> list[Any]:
    """What each process passed, as JSON can say it, by process; all must call it together."""
    if jax.process_count() == 1:
        return [json.loads(json.dumps(value))]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([len(text)], np.int32)).reshape(-1)
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(text)] = text
    texts = multihost_utils.process_allgather(padded).reshape(len(sizes), -1)
    return [json.loads(t[:n].tobytes()) for t, n in zip(texts, sizes, strict=True)]


def on_first(action: Callable[[], Result]) -> Result | None:
    """Does something on the first process alone; UserError on all of them where it is one there."""
    return agreed(lambda: action() if is_first() else None)


def agreed(action: Callable[[], Result]) -> Result:
    """Does something on every process; UserError on all of them where it is one on any."""
    failure = None
    try:
        result = action()
    except UserError as error:
        failure = str(error)
    all_agree(failure)
    return result


def all_agree(error: str | None) -> None:
    """Raises UserError on every process where any passed an error, so that none waits for it.

    Raises:
      UserError: with the first error.
    """
    errors = [e for e in gather(error) if e is not None]
    if errors:
        raise UserError(errors[0])
