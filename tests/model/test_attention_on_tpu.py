"""The training step compiled for TPUs that are not there: what its attention has become."""

import re
from collections import Counter

import jax
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from switch_jax.config import ModelConfig
from switch_jax.model import abstract_parameters, attention, bind, logical_axes
from switch_jax.partitioning.mesh import AXES, BATCH, MODEL
from tests.trainer.helpers import by_stack

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("scopes_and_kernels_by_name")]
# Sizes that are no other size of the model: rows, inputs, targets, heads of each device; the width.
ROWS, INPUTS, TARGETS, HEADS, WIDTH = 6, 256, 114, 10, 128
MODEL_CONFIG = ModelConfig(
    num_embeddings=384,
    embed_dim=WIDTH,
    mlp_dim=512,
    head_dim=64,
    num_heads=2 * HEADS,
    num_encoder_layers=2,
    num_decoder_layers=2,
)


@pytest.fixture(scope="module")
def mesh():
    """Four v5p chips, data x expert x model = 2 x 1 x 2."""
    pytest.importorskip("libtpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TPU_SKIP_MDS_QUERY", "1")
        patch.setenv("TPU_ACCELERATOR_TYPE", "v5p-8")
        patch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
        patch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
        chips = topologies.get_topology_desc(platform="tpu", topology_name="v5p:2x2x1").devices
    devices = np.array(chips).reshape(2, 1, 2)
    return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * 3)


def _compiled(mesh):
    """HLO of the loss's gradient."""

    def loss(parameters, inputs, targets):
        model = bind(MODEL_CONFIG, parameters)
        tokens = by_stack(inputs, targets)
        segments = jax.tree.map(lambda ids: (ids != 0).astype(int), tokens)
        return model(tokens, segments, key=jax.random.key(0)).logits.sum()

    def abstract(shape, dtype, spec):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    def parameter(array, axes):
        spec = P(*[MODEL if name in ("heads", "mlp") else None for name in axes])
        return abstract(array.shape, array.dtype, spec)

    parameters = jax.tree.map(
        parameter, abstract_parameters(MODEL_CONFIG), logical_axes(MODEL_CONFIG)
    )
    tokens = [abstract((2 * ROWS, length), int, P(BATCH)) for length in (INPUTS, TARGETS)]
    with jax.set_mesh(mesh):
        return jax.jit(jax.grad(loss)).lower(parameters, *tokens).compile().as_text()


def _scores(hlo):
    """The shapes that hold a number for each head, query and key."""
    shapes = {tuple(map(int, s.split(","))) for s in re.findall(r"\w+\[([\d,]+)\]", hlo)}
    pairs = [(INPUTS, INPUTS), (TARGETS, TARGETS), (TARGETS, INPUTS)]
    return [s for s in shapes for pair in pairs if Counter((HEADS, *pair)) <= Counter(s)]


def test_no_array_of_scores_and_no_gather_of_heads_or_rows(mesh):
    hlo = _compiled(mesh)
    kernels = re.findall(r"%(forward|backward)_attention[.\d]* = .*tpu_custom_call", hlo)
    # In each direction: encoder, decoder, cross-attention; a scan's body stands there once.
    assert sorted(kernels) == ["backward"] * 3 + ["forward"] * 3
    assert not _scores(hlo)
    # What is gathered are activations: all of their width, of a device's own rows.
    gathered = set(re.findall(r"= \(?\w+\[([\d,]+)\]\S* all-gather", hlo))
    assert gathered == {f"{ROWS},{length},{WIDTH}" for length in (INPUTS, TARGETS)}


def test_without_the_kernel_there_are_such_arrays(mesh, monkeypatch):
    """So that the test above can fail."""
    monkeypatch.setattr(attention, "fused_kernel", lambda *_: None)
    assert _scores(_compiled(mesh))
