"""A small state and its checkpoints."""

import functools

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from switch_jax.checkpointing import Checkpoints
from switch_jax.config import MeshConfig
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.run_folder import RunFolder

# 2 MB, so that there are files with nothing but data; the rest lies within descriptions.
PLACES = {
    "step": PartitionSpec(),
    "parameters": {
        "large_in_own_files": PartitionSpec("expert"),
        "nested": {"matrix": PartitionSpec("data", "model"), "vector": PartitionSpec()},
    },
}


def values_of(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    shapes = {"large_in_own_files": (1024, 512), "nested": {"matrix": (8, 4), "vector": (5,)}}
    parameters = jax.tree.map(
        lambda shape: rng.normal(size=shape).astype(np.float32),
        shapes,
        is_leaf=lambda shape: isinstance(shape, tuple),
    )
    return {"step": np.int32(seed), "parameters": parameters}


def notes_of(seed: int) -> dict:
    return {"position": {"batches": 1000 + seed, "streams": {"3": [seed, 17]}}, "best": None}


def on_mesh(mesh_shape, values):
    mesh = make_mesh(MeshConfig(*mesh_shape))
    return jax.tree.map(lambda v, p: jax.device_put(v, NamedSharding(mesh, p)), values, PLACES)


def state_of(seed: int, mesh_shape=(2, 2, 2)):
    return on_mesh(mesh_shape, values_of(seed))


def abstract(state):
    def one(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)

    return jax.tree.map(one, state)


ABSTRACT = functools.cache(lambda: abstract(state_of(0)))


def assert_is(restored, step: int, seed: int | None = None, notes=None) -> None:
    seed = step if seed is None else seed
    assert restored.step == step
    assert restored.notes == (notes_of(seed) if notes is None else notes)
    for a, b in zip(jax.tree.leaves(restored.state), jax.tree.leaves(values_of(seed)), strict=True):
        np.testing.assert_array_equal(a, b)


def save_steps(folder, steps, keep=3):
    checkpoints = Checkpoints(RunFolder(folder), keep)
    for step in steps:
        checkpoints.save(step, state_of(step), notes_of(step), None)
    checkpoints.wait()
    return checkpoints
