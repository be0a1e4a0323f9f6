import runpy
from pathlib import Path

import jax
import numpy as np

from switch_jax.config import MeshConfig
from switch_jax.doctor.step_checks import small_config
from switch_jax.model import feed_forward
from switch_jax.moe import LayerKey, SwitchWeights, Tokens, make_router, switch_ffn
from switch_jax.partitioning.mesh import make_mesh

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_one_hot_peer_is_the_layer_that_it_is_compared_with(monkeypatch):
    monkeypatch.setattr(feed_forward, "switch_ffn", switch_ffn)  # put back at the end
    monkeypatch.syspath_prepend(BENCHMARKS)
    runpy.run_path(str(BENCHMARKS / "switch_step.py"))["use_one_hot_einsum"]()
    config = small_config(make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1]))
    config = config.replace("model", num_experts=4, jitter_noise=0.1, group_size=16).model
    router = make_router(config, config.stacks[0])
    rng = np.random.default_rng(0)
    x, kernel, wi, wo = (
        rng.normal(size=shape).astype(np.float32)
        for shape in [(2, 16, 8), (8, 4), (4, 8, 12), (4, 12, 8)]
    )
    tokens = Tokens(np.zeros((2, 16), np.int32), np.ones((2, 16), np.int32))
    key = LayerKey(jax.random.key(0))
    ours, peers = (
        jax.jit(
            lambda x, ffn=ffn: ffn(
                x, tokens, SwitchWeights(kernel, (wi,), wo), router, jax.nn.relu,
                training=True, key=key,
            )
        )(x)
        for ffn in (switch_ffn, feed_forward.switch_ffn)
    )  # fmt: skip
    np.testing.assert_allclose(peers[0], ours[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(peers[1].load, ours[1].load)
    assert float(ours[1].dropped) > 0
