"""A checkpoint in the storage of MODEL_DIR: whether it comes back, and how fast that is."""

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from switch_jax.checkpointing import Checkpoints
from switch_jax.doctor.checks import Finding, Verdict
from switch_jax.doctor.compare import parts_here
from switch_jax.errors import UserError
from switch_jax.partitioning.mesh import AXES
from switch_jax.run_folder import RunFolder
from switch_jax.runtime.processes import gather, is_first
from switch_jax.storage import in_bucket

BYTES = 256 << 20  # over the whole mesh
BYTES_OF_A_PROCESS = 64 << 20  # at least
_ARRAYS, _WIDTH = 16, 1024


def checkpoint(mesh: Mesh, model_dir: epath.Path) -> Finding:
    """Saves and restores one in a folder beside MODEL_DIR, which it removes.

    Args:
      mesh: the devices that the checkpoint comes from, and goes to.
      model_dir: MODEL_DIR.
    """
    # A name that no run has, since the folder is removed; the first process draws it for all.
    folder = model_dir.parent / f"{model_dir.name}_doctor_{gather(uuid.uuid4().hex[:8])[0]}"
    state = _random_state(mesh)
    size = sum(array.nbytes for array in state.values())
    try:
        restored, saved, read = _saved_and_restored(state, RunFolder(folder))
    except UserError as error:
        text = f"{size / 1e6:.0f} MB did not come back: {error}"
        advice = "make room there, or set MODEL_DIR to a place that can be written and read"
        return Finding(Verdict.FAILED, text, {"bytes": size}, advice)
    finally:
        gather(None)  # all processes have read it
        if is_first():
            folder.rmtree(missing_ok=True)
    before, after = parts_here(state), parts_here(restored)
    if any(a.tobytes() != b.tobytes() for a, b in zip(before, after, strict=True)):
        advice = f"do not keep runs in {folder.parent}: what was read is not what was written"
        return Finding(Verdict.FAILED, "comes back with other numbers", {}, advice)
    numbers = {"bytes": size, "save_seconds": saved, "restore_seconds": read}
    rates = {"write_bytes_per_second": size / saved, "read_bytes_per_second": size / read}
    text = (
        f"{size / 1e6:.0f} MB come back bit for bit; written with {size / saved / 1e9:.2g} GB/s, "
        f"read with {size / read / 1e9:.2g} GB/s"
    )
    return Finding(Verdict.OK, text, numbers | rates)


def _random_state(mesh: Mesh) -> dict[str, jax.Array]:
    """Arrays [devices, rows, width] of random bits, which no compression makes smaller."""
    size = max(BYTES, BYTES_OF_A_PROCESS * jax.process_count())
    rows = max(1, size // (4 * _WIDTH * _ARRAYS * mesh.size))
    sharding = NamedSharding(mesh, PartitionSpec(AXES))
    draw = jax.jit(
        lambda key: jax.random.bits(key, (mesh.size, rows, _WIDTH), np.uint32),
        out_shardings=sharding,
    )
    return {f"array_{i}": draw(jax.random.key(i)) for i in range(_ARRAYS)}


def _saved_and_restored(
    state: dict[str, jax.Array], folder: RunFolder
) -> tuple[dict[str, jax.Array], float, float]:
    """What was read, and the seconds of writing and reading.

    Raises:
      UserError: it cannot be written, or what was written is not there.
    """
    jax.block_until_ready(state)
    with _opened(folder) as checkpoints:
        start = time.monotonic()
        checkpoints.save(1, state, {}, None)
        checkpoints.wait()
        saved = time.monotonic() - start
        _forget(folder.path)
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
        )
        start = time.monotonic()
        restored = checkpoints.restore(shapes)
        if restored is None:
            raise UserError(f"there is no checkpoint in {folder.checkpoints} after it was written")
        jax.block_until_ready(restored.state)
        return restored.state, saved, time.monotonic() - start


@contextlib.contextmanager
def _opened(folder: RunFolder) -> Iterator[Checkpoints]:
    checkpoints = Checkpoints(folder, 1)
    try:
        yield checkpoints
    except BaseException:
        with contextlib.suppress(UserError):  # it would say the same again
            checkpoints.close()
        raise
    checkpoints.close()


def _forget(folder: epath.Path) -> None:
    """Takes a disk's files out of this machine's memory, so that they are read from the disk."""
    if in_bucket(folder) or not hasattr(os, "posix_fadvise"):
        return
    for path in Path(folder).rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())  # what is not on the disk yet would stay
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
