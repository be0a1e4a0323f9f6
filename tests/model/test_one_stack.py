"""A decoder alone: packed rows against each example by itself, and a mesh against one device."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from switch_jax.config import MeshConfig
from switch_jax.data.packing import empty_batch, pack_rows, write_row
from switch_jax.model import init_parameters
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.train_step.loss import forward
from tests.trainer.helpers import tiny_model

LENGTHS = {"inputs": 8, "targets": 8}
# With room for all tokens: where some are dropped, what an example gets depends on its neighbours.
SWITCH = tiny_model(num_encoder_layers=0, group_size=16, eval_expert_capacity_factor=4.0)
TODAY = dataclasses.replace(
    SWITCH, positions="rotary", num_heads=4, num_key_value_heads=2, qk_norm=True,
    activation="swiglu", num_selected_experts=2,
)  # fmt: skip
SIZES = [(2, 3), (0, 4), (5, 3), (8, 8), (1, 1), (0, 7), (3, 2), (4, 4), (1, 6), (2, 2)]


@pytest.fixture(scope="module")
def examples():
    """Of so many inputs and targets."""
    rng = np.random.default_rng(0)
    return [
        dict(zip(LENGTHS, (rng.integers(2, 64, n, dtype=np.int32) for n in both), strict=True))
        for both in SIZES
    ]


def batch_of(model, examples, pack):
    """8 rows, in which all examples have a place if they are packed; otherwise the first 8."""
    batch = empty_batch(model.stacks, 8, LENGTHS)
    rows = list(pack_rows(model.stacks, [(e, None) for e in examples], LENGTHS, pack))[:8]
    for row, found in enumerate(rows):
        write_row(model.stacks, batch, row, [example for example, _ in found])
    return batch, len(rows)


def cross_entropy(model, batch, mesh=(1, 1, 1)):
    """The sum over the targets of a batch, and their number."""
    parameters = jax.tree.map(lambda x: 2 * x, init_parameters(model, jax.random.key(1)))
    with jax.set_mesh(make_mesh(MeshConfig(*mesh))):
        _, sums = jax.jit(functools.partial(forward, model))(jax.device_get(parameters), batch)
    return float(sums.cross_entropy), float(sums.tokens)


@pytest.mark.parametrize("model", [SWITCH, TODAY], ids=["switch", "today"])
def test_a_packed_row_has_the_loss_of_its_examples(model, examples):
    packed, rows = batch_of(model, examples[:8], pack=True)
    alone, _ = batch_of(model, examples[:8], pack=False)
    assert rows < 8
    expected, count = cross_entropy(model, alone)
    assert count == sum(targets for _, targets in SIZES[:8])
    np.testing.assert_allclose(cross_entropy(model, packed), (expected, count), rtol=1e-5)
    # And the inputs matter, though they have no loss.
    changed = [{**e, "inputs": e["inputs"] % 7} for e in examples[:8]]
    assert abs(cross_entropy(model, batch_of(model, changed, True)[0])[0] - expected) > 1


@pytest.mark.parametrize("model", [SWITCH, TODAY], ids=["switch", "today"])
def test_a_mesh_has_the_loss_of_one_device(model, examples):
    batch, _ = batch_of(model, examples, pack=True)
    expected = cross_entropy(model, batch)
    np.testing.assert_allclose(cross_entropy(model, batch, (2, 2, 2)), expected, rtol=1e-5)
