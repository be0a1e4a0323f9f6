import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.moe import assign
from switch_jax.moe.dispatch import combine, dispatch, dispatch_indices
from tests.moe import reference


@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_gradients_of_dispatch_and_combine_are_the_scatters_that_autodiff_would_do(chunks):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 10, 3)).astype(np.float32)
    valid = rng.random((2, 10)) < 0.9
    slots = 3
    indices = jax.jit(
        lambda: dispatch_indices(assign(logits, slots, valid), (4, 5), chunks)  # two rows a group
    )()
    gates = reference.assign(logits, slots, valid)  # [G, S, E, C]
    mask = np.zeros((20, 18), np.float32)  # token, slot
    for g, s, e, c in np.argwhere(gates > 0):
        mask[g * 10 + s, (e * 2 + g) * slots + c] = 1
    # An expert's 2 x 3 slots, cut into chunks of all experts' slots.
    mask = mask.reshape(20, 3, chunks, -1).swapaxes(1, 2).reshape(20, 18)
    assert 0 < mask.sum() < 18, "some slots should be empty"
    tokens, rows, gate = (jnp.asarray(rng.normal(size=s)) for s in ((4, 5, 4), (18, 4), (4, 5)))
    kept = mask.sum(1).reshape(4, 5)
    gate *= kept

    def loss(tokens, rows, gate, dispatched, combined):
        return jnp.sum(dispatched(tokens) ** 2 * mask.sum(0)[:, None]) + jnp.sum(
            combined(rows, gate) ** 3
        )

    plain = (
        lambda t: mask.T @ t.reshape(20, 4),
        lambda r, g: (mask @ r).reshape(4, 5, 4) * g[..., None],
    )
    ours = (
        lambda t: jnp.concatenate(dispatch(t, indices)),
        lambda r, g: combine(tuple(jnp.split(r, chunks)), (g,), indices),
    )

    def value_and_gradients(functions):
        of_arrays = functools.partial(loss, dispatched=functions[0], combined=functions[1])
        value, (by_tokens, by_rows, by_gate) = jax.jit(
            jax.value_and_grad(of_arrays, argnums=(0, 1, 2))
        )(tokens, rows, gate)
        # By the gate, where there is one: a dropped token's is constant.
        return value, by_tokens, by_rows, by_gate * kept

    for a, b in zip(value_and_gradients(ours), value_and_gradients(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
