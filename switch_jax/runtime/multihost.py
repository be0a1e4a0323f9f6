"""The processes of a run: how they find each other, exchange values, and fail together."""

import contextlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax._src import distributed
from jax.experimental import multihost_utils

from switch_jax.partitioning.mesh import offer_virtual_cpus
from switch_jax.utils.differences import differences, listed
from switch_jax.utils.errors import LostHostError, TransientError, UserError
from switch_jax.version import __version__

Result = TypeVar("Result")

# Seconds after which a process that does not answer counts as lost.
_HEARTBEAT_TIMEOUT = 100
# Seconds between the first start and the last; on a platform each host pulls the image first.
_START_TIMEOUT = 300
_PLATFORM_START_TIMEOUT = 1800
# Seconds between the first process that has compiled and the last.
_MEETING_TIMEOUT = 3600

# Linux's name of the machine's model; Google's machines have "Google Compute Engine".
_PRODUCT_NAME = Path("/sys/class/dmi/id/product_name")


def connect(
    coordinator_address: str | None,
    process_count: int | None,
    process_index: int | None,
    local_cpu_devices: int | None = None,
) -> None:
    """Joins the other processes. Call this before anything starts JAX's devices.

    `coordinator_address` is host:port of process 0. On Cloud TPU, GKE, Slurm and Open MPI
    `jax.distributed.initialize` finds what is None. `local_cpu_devices` is the number of virtual
    devices of this process, if there are only CPUs.

    Raises UserError if nothing says where the other processes are, LostHostError if they do not
    start in time, TransientError if this machine's TPU is not found.
    """
    if local_cpu_devices:
        offer_virtual_cpus(local_cpu_devices)
    # Its SIGTERM handler would replace ours.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator_address,
            process_count,
            process_index,
            initialization_timeout=_START_TIMEOUT if process_count else _PLATFORM_START_TIMEOUT,
            heartbeat_timeout_seconds=_HEARTBEAT_TIMEOUT,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        message = f"cannot join the other processes: {reason}"
        if isinstance(error, RuntimeError):
            raise LostHostError(message) from error
        if process_count is not None:
            raise UserError(message) from error
        if _is_meant_for_tpus():
            raise TransientError(f"{message}; no TPU shows up on this machine") from error
        raise UserError(
            f"{message}; --multihost is for Cloud TPU, GKE, Slurm and Open MPI: elsewhere give "
            "--coordinator_address, --process_count and --process_index"
        ) from error


def _is_meant_for_tpus() -> bool:
    """Says whether this is a TPU pod of GKE or a Google VM; JAX looks only if it sees a chip."""
    if os.environ.keys() & {"TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES"}:
        return True
    return _PRODUCT_NAME.exists() and _PRODUCT_NAME.read_text().startswith("Google")


def check_same_config(config_text: str) -> None:
    """Compares what must be equal on all processes, after `connect` and before JAX starts.

    Values go through the coordinator: programs of different JAX versions might wait for each other
    forever. Raises UserError on every process, with what differs.
    """
    lines = {f"line {n}": line for n, line in enumerate(config_text.splitlines(), 1)}
    publish("same_config", json.dumps({**versions(), **lines}))
    barrier("same_config", _HEARTBEAT_TIMEOUT)
    if error := difference([json.loads(text) for text in published("same_config")]):
        raise UserError(error)


def barrier(name: str, seconds: int = _MEETING_TIMEOUT) -> None:
    """Waits until all processes have called it; JaxRuntimeError if that takes more than `seconds`.

    This runs no JAX program, which on CPUs fails if the others start it more than 30 seconds later.
    Each `name` is used once in a run.
    """
    if process_index_and_count()[1] > 1:
        _coordinator().wait_at_barrier(f"switch_jax/{name}", 1000 * seconds)


def publish(name: str, value: str) -> None:
    """Publishes a value for the other processes, without waiting for them."""
    index, count = process_index_and_count()
    if count > 1:
        _coordinator().key_value_set(f"switch_jax/{name}/{index}", value, allow_overwrite=True)


def published(name: str) -> list[str]:
    """Returns the values published so far, by process index; none in a single process."""
    if process_index_and_count()[1] == 1:
        return []
    found = _coordinator().key_value_dir_get(f"switch_jax/{name}")
    return [value for _, value in sorted(found, key=lambda item: int(item[0].rpartition("/")[2]))]


def disconnect() -> None:
    """Leaves the other processes, once all of them call this: then no heartbeats are expected."""
    with contextlib.suppress(RuntimeError):  # another process is gone
        jax.distributed.shutdown()


def _coordinator() -> Any:
    """Returns the client of the coordinator, process 0; JAX has no public name for it."""
    return distributed.global_state.client


def versions() -> dict[str, str]:
    """Returns versions of Python, switch_jax and the compiler's packages; '-' if not installed."""
    found = {"Python": platform.python_version(), "switch_jax": __version__}
    for name in ("jax", "jaxlib", "libtpu"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "-"
    return found


def difference(facts: Sequence[Mapping[str, str]]) -> str | None:
    """Describes how the first process with other versions or config differs; None if none does."""
    for index, other in enumerate(facts):
        if found := differences(facts[0], other):
            return (
                f"process {index} differs from process 0 ({listed(found)}): give all processes the "
                "same gin files and values, and the same versions (docs/install.md)"
            )
    return None


def process_index_and_count() -> tuple[int, int]:
    """Returns the index of this process and their number, without starting the devices."""
    return distributed.global_state.process_id, distributed.global_state.num_processes


def is_first() -> bool:
    """Says whether this is process 0, which alone writes files that are written once."""
    return jax.process_index() == 0


def gather(value: Any) -> list[Any]:
    """Returns the values of all processes by index, sent as JSON; all processes must call this."""
    if jax.process_count() == 1:
        return [json.loads(json.dumps(value))]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([len(text)], np.int32)).reshape(-1)
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(text)] = text
    texts = multihost_utils.process_allgather(padded).reshape(len(sizes), -1)
    return [json.loads(t[:n].tobytes()) for t, n in zip(texts, sizes, strict=True)]


def run_on_first(action: Callable[[], Result]) -> Result | None:
    """Runs an action on the first process alone. If it raises UserError, all processes do."""
    return run_on_all(lambda: action() if is_first() else None)


def from_first(action: Callable[[], Result]) -> Result:
    """Returns on all processes what an action gives on the first; raises as `run_on_all`."""
    return gather(run_on_first(action))[0]


def run_on_all(action: Callable[[], Result]) -> Result:
    """Runs an action on every process. If one of them raises UserError, all processes do.

    They raise the first error that is not transient, or the first one if all are.
    """
    failure = None
    try:
        result = action()
    except UserError as error:
        failure = (str(error), isinstance(error, TransientError), error.of_storage)
    errors = [e for e in gather(failure) if e is not None]
    if errors:
        message, transient, of_storage = min(errors, key=lambda e: e[1])
        worst = (TransientError if transient else UserError)(message)
        worst.of_storage = of_storage
        raise worst
    return result
