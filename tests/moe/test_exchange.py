import jax
import jax.numpy as jnp
import pytest

from switch_jax.config import MeshConfig
from switch_jax.moe import SwitchWeights, exchange, layer
from switch_jax.partitioning.mesh import make_mesh
from tests.moe.layers import switch


@pytest.mark.parametrize(
    ("expert_shards", "rows", "has_async", "chunks"),
    [
        (128, 80, True, 2),
        (128, 80, False, 1),  # nothing would be computed meanwhile
        (1, 10_240, True, 1),  # nothing is exchanged
        (128, 18, True, 1),  # 9 rows are not whole tiles of 8
        (8, 256, True, 2),  # 1024 rows of each expert in a chunk
        (8, 240, True, 1),
    ],
)
def test_slots_are_cut_where_that_hides_an_exchange(
    expert_shards, rows, has_async, chunks, monkeypatch
):
    monkeypatch.setattr(exchange, "has_async_all_to_all", lambda: has_async)
    assert exchange.num_chunks(expert_shards, rows) == chunks


def test_the_gradients_of_both_chunks_are_summed_over_devices_at_once(monkeypatch):
    """Over those along data, and over those that have the same one of two experts."""
    switch_layer = switch(2, 64, 1.0)

    def all_reduces(chunks):
        monkeypatch.setattr(layer, "num_chunks", lambda *_: chunks)

        def loss(x, wi, wo):
            weights = SwitchWeights(jnp.ones((8, 2)), (wi,), wo)
            return switch_layer(x, x[..., 0] > 0, weights)[0].sum()

        shapes = (8, 64, 8), (2, 8, 16), (2, 16, 8)
        with jax.set_mesh(make_mesh(MeshConfig(2, 4, 1))):
            arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
            text = jax.jit(jax.grad(loss, argnums=(1, 2))).lower(*arguments).as_text()
        return text.count("stablehlo.all_reduce")

    assert all_reduces(2) == all_reduces(1) > 0


@pytest.mark.parametrize(("dropout", "number"), [(0.0, 4), (0.5, 2)])
def test_a_layer_exchanges_each_chunk_by_itself(dropout, number, monkeypatch):
    """Not with expert dropout, which is drawn for all slots at once."""
    monkeypatch.setattr(exchange, "has_async_all_to_all", lambda: True)
    monkeypatch.setattr(exchange, "MIN_ROWS_OF_CHUNK", 1)
    weights = SwitchWeights(jnp.ones((8, 4)), (jnp.ones((4, 8, 8)),), jnp.ones((4, 8, 8)))
    switch_layer = switch(4, 64, 1.0, expert_dropout_rate=dropout)

    def apply(x, key):
        return switch_layer(x, jnp.ones(x.shape[:2], bool), weights, key)[0]

    with jax.set_mesh(make_mesh(MeshConfig(1, 4, 1))):
        x = jax.ShapeDtypeStruct((4, 64, 8), jnp.float32)
        text = jax.jit(apply).lower(x, jax.random.key(0)).as_text()
    assert text.count("stablehlo.all_to_all") == number
