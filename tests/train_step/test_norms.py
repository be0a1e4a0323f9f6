import jax
import numpy as np
import pytest

from switch_jax.model import init_parameters, logical_axes
from switch_jax.optim.apply import sum_of_squares
from switch_jax.train_step.norms import Norms
from tests.trainer.helpers import tiny_model

# By the parameters' names, as opposed to their axes.
GROUPS = {
    "router": ["/router"],
    "experts": ["layer_1/feed_forward/w"],
    "mlp": ["layer_0/feed_forward/w"],
    "attention": ["_attention/key", "_attention/query", "_attention/value", "_attention/out"],
    "position_bias": ["relative_position_bias/"],
    "norms": ["norm/scale"],
}


@pytest.mark.parametrize("experts", [4, 0])
def test_norms_are_those_of_the_arrays_of_each_group(experts):
    model = tiny_model(num_experts=experts)
    kinds = [kind for kind in GROUPS if experts or kind not in ("router", "experts")]
    names = {f"{stack}/{kind}" for stack in ("encoder", "decoder") for kind in kinds}
    parameters = init_parameters(model, jax.random.key(1))
    # Norms are 1 at first, and equal arrays would not distinguish groups.
    rng = np.random.default_rng(0)
    parameters = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), parameters)
    squares = dict.fromkeys([*names, "embedding"], 0.0)
    for path, array in jax.tree_util.tree_leaves_with_path(parameters):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        fitting = [kind for kind, parts in GROUPS.items() if any(part in name for part in parts)]
        group = "embedding"
        if name != "token_embedding/embedding":
            (kind,) = fitting
            group = f"{name.split('/')[0]}/{kind}"
        squares[group] += float(np.sum(array.astype(np.float64) ** 2))

    norms = Norms.of(jax.tree.map(sum_of_squares, parameters), logical_axes(model))
    assert set(norms.groups) == set(squares)
    for group, square in squares.items():
        np.testing.assert_allclose(norms.groups[group], square**0.5, rtol=1e-6, err_msg=group)
    np.testing.assert_allclose(norms.all, sum(squares.values()) ** 0.5, rtol=1e-6)
    by_group = sum(float(norm) ** 2 for norm in norms.groups.values())
    np.testing.assert_allclose(float(norms.all) ** 2, by_group, rtol=1e-6)
