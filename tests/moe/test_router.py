import jax
import jax.numpy as jnp
import numpy as np

from switch_jax.moe.random_streams import RouterKey, Stream, noise
from switch_jax.moe.router import router_logits


def test_logits_and_gradients_are_those_of_the_noisy_product():
    rng = np.random.default_rng(0)
    x, router, weights = (
        rng.normal(size=s).astype(np.float32) for s in ((4, 6, 8), (8, 5), (4, 6, 5))
    )
    bits = RouterKey(jax.random.key(3), jnp.int32(0), 0, 12).bits(Stream.ROUTER_INPUT, x.shape)
    factor = 1 + 0.1 * np.asarray(noise(bits))

    def ours(x, router):
        return jnp.sum(router_logits(x, router, 0.1, bits) * weights)

    def plain(x, router):
        return jnp.sum((x * factor) @ router * weights)

    assert float(ours(x, router)) != float(jnp.sum(router_logits(x, router) * weights))
    for a, b in zip(
        jax.tree.leaves(jax.value_and_grad(ours, argnums=(0, 1))(x, router)),
        jax.tree.leaves(jax.value_and_grad(plain, argnums=(0, 1))(x, router)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
