"""The processes of a run: how they find each other, and what all of them must know alike."""

import contextlib
import importlib.metadata
import itertools
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

import switch_jax
from switch_jax.errors import LostHostError, TransientError, UserError
from switch_jax.partitioning.mesh import offer_virtual_cpus

Result = TypeVar("Result")

# Seconds after which the others give up on a process that is gone.
_HEARTBEAT_TIMEOUT = 100
# Seconds between the first and the last that starts; on a platform each host pulls the image first.
_START_TIMEOUT = 300
_PLATFORM_START_TIMEOUT = 1800
# Seconds between the first and the last that has compiled.
_MEETING_TIMEOUT = 3600

# What Linux says the machine is; on Google's, "Google Compute Engine".
_PRODUCT_NAME = Path("/sys/class/dmi/id/product_name")


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
      UserError: it is not known where the others are.
      LostHostError: they were not there in time.
      TransientError: the TPU of this machine does not show up.
    """
    given = (coordinator_address, process_count, process_index)
    if None in given and given != (None, None, None):
        raise UserError(
            "--coordinator_address, --process_count and --process_index belong together: give all "
            "three, or --multihost alone where the platform knows them"
        )
    if process_count is not None and process_count < 1:
        raise UserError(f"--process_count={process_count}: write 1 or more")
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
    """Whether this is a TPU pod of GKE or a VM of Google's: JAX asks only where it sees a chip."""
    if os.environ.keys() & {"TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES"}:
        return True
    return _PRODUCT_NAME.exists() and _PRODUCT_NAME.read_text().startswith("Google")


def check_alike(config_text: str) -> None:
    """Compares what must be the same on all processes, after `connect` and before JAX starts.

    The words go through the coordinator: programs of different versions of JAX might wait for each
    other for ever.

    Args:
      config_text: the parsed config.

    Raises:
      UserError: on every process, with the first thing that differs.
    """
    index, client = distributed.global_state.process_id, _coordinator()
    folder = "switch_jax/alike"
    own = json.dumps({**versions(), "config": config_text})
    client.key_value_set(f"{folder}/{index}", own)
    client.wait_at_barrier(folder, 1000 * _HEARTBEAT_TIMEOUT)
    facts = {int(key.rpartition("/")[2]): text for key, text in client.key_value_dir_get(folder)}
    error = difference([json.loads(facts[index]) for index in sorted(facts)])
    if error:
        raise UserError(error)


def meet(place: str) -> None:
    """Waits for all processes at a place that each comes to once; alone it returns at once.

    No program runs for it: on CPUs one that others start more than 30 seconds later fails.
    """
    if jax.process_count() > 1:
        _coordinator().wait_at_barrier(f"switch_jax/{place}", 1000 * _MEETING_TIMEOUT)


def announce(name: str, value: str) -> None:
    """Leaves a word for the other processes, which they find when they look: none waits for it."""
    if jax.process_count() > 1:
        key = f"switch_jax/{name}/{jax.process_index()}"
        _coordinator().key_value_set(key, value, allow_overwrite=True)


def announced(name: str) -> list[str]:
    """The words that processes have left under this name so far; alone there are none."""
    if jax.process_count() == 1:
        return []
    return [value for _, value in _coordinator().key_value_dir_get(f"switch_jax/{name}")]


def part() -> None:
    """Leaves the other processes, when all come to this: no heartbeat is missed from now on."""
    with contextlib.suppress(RuntimeError):  # another is gone: this one has done its part
        jax.distributed.shutdown()


def _coordinator() -> Any:
    """The client of what process 0 coordinates; JAX has no public name for it."""
    return distributed.global_state.client


def versions() -> dict[str, str]:
    """Of Python, switch_jax, and what programs are compiled by; '-' where it is not installed."""
    found = {"Python": platform.python_version(), "switch_jax": switch_jax.__version__}
    for name in ("jax", "jaxlib", "libtpu"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "-"
    return found


def difference(facts: Sequence[Mapping[str, str]]) -> str | None:
    """The first thing that processes do not have alike, as one line; None: there is none.

    Args:
      facts: `versions` and "config" of each process, by its number.
    """
    first = facts[0]
    for name, value in first.items():
        others = [i for i, some in enumerate(facts) if some[name] != value]
        if not others:
            continue
        other = facts[others[0]][name]
        numbers = _numbers([i for i in others if facts[i][name] == other])
        same = _numbers([i for i, some in enumerate(facts) if some[name] == value])
        if name == "config":
            ours, theirs = _first_lines(value, other)
            return (
                f"the configs differ: {ours!r} on {same}, {theirs!r} on {numbers}; give all "
                "processes the same gin files and values"
            )
        return (
            f"the versions of {name} differ: {value} on {same}, {other} on {numbers}; install the "
            "same on all hosts (docs/install.md)"
        )
    return None


def _first_lines(ours: str, theirs: str) -> tuple[str, str]:
    """The first line of each text that is not that of the other."""
    pairs = itertools.zip_longest(ours.splitlines(), theirs.splitlines(), fillvalue="")
    return next((a, b) for a, b in pairs if a != b)


def _numbers(indices: Sequence[int]) -> str:
    """'process 3', 'processes 0, 1, 2, and 5 more'."""
    more = f", and {len(indices) - 4} more" if len(indices) > 4 else ""
    noun = "process" if len(indices) == 1 else "processes"
    return f"{noun} {', '.join(map(str, indices[:4]))}{more}"


def joined() -> tuple[int, int]:
    """The number of this process and how many there are; starts no devices, as JAX's own does."""
    return distributed.global_state.process_id, distributed.global_state.num_processes


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
        failure = error
    all_agree(failure)
    return result


def all_agree(error: UserError | None) -> None:
    """Raises UserError on every process where any passed an error, so that none waits for it.

    Raises:
      UserError: the first that does not pass.
      TransientError: the first, where all may pass.
    """
    own = None if error is None else (str(error), isinstance(error, TransientError))
    errors = [e for e in gather(own) if e is not None]
    if errors:
        message, transient = min(errors, key=lambda e: e[1])
        raise (TransientError if transient else UserError)(message)
