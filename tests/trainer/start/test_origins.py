"""What each array of a model is made of, tensor by tensor."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from switch_jax.model import abstract_parameters
from switch_jax.trainer.start.origins import assemble, from_teacher, in_words, other_meanings
from tests.trainer.helpers import tiny_model

THEIRS = 100_000  # the teacher's numbers begin here, above all of the student's


def _numbered(model, offset):
    """Parameters in which no number comes twice."""
    leaves, tree = jax.tree.flatten(abstract_parameters(model))
    starts = offset + np.cumsum([0] + [leaf.size for leaf in leaves])
    arrays = [
        np.arange(start, start + leaf.size, dtype=np.float32).reshape(leaf.shape)
        for start, leaf in zip(starts, leaves, strict=False)
    ]
    return jax.tree.unflatten(tree, arrays)


def _start(student, teacher):
    """The student's parameters as drawn and at the start, and the teacher's."""
    drawn, given = _numbered(student, 0), _numbered(teacher, THEIRS)
    flat = (flatten_dict(tree, sep="/") for tree in (drawn, given))
    start = assemble(from_teacher(student, teacher), *flat, jax.random.key(0))
    return drawn, unflatten_dict(start, sep="/"), given


def _layer(parameters, stack, layer):
    """The parameters of one layer, counted from 0."""
    block, place = divmod(layer, len(parameters[stack]["blocks"]))
    blocks = parameters[stack]["blocks"][f"layer_{place}"]
    return jax.tree.map(lambda x: np.asarray(x[block]), blocks)


def _drawn_names(start):
    """The arrays that have something of what was drawn."""
    return {name for name, array in flatten_dict(start, sep="/").items() if np.any(array < THEIRS)}


def _assert_equal(tree, expected):
    jax.tree.map(np.testing.assert_array_equal, tree, expected)


def test_a_dense_student_takes_all_but_the_places_of_the_experts():
    student = tiny_model(num_experts=0, num_encoder_layers=4)
    teacher = tiny_model(num_encoder_layers=4)  # layers 1 and 3 are sparse
    drawn, start, given = _start(student, teacher)
    _assert_equal(start["token_embedding"], given["token_embedding"])
    for stack, layers in (("encoder", 4), ("decoder", 2)):
        for name in ("final_norm", "relative_position_bias"):
            _assert_equal(start[stack][name], given[stack][name])
        for layer in range(layers):
            own = _layer(start, stack, layer)
            as_drawn = _layer(drawn, stack, layer)
            theirs = _layer(given, stack, layer)
            _assert_equal(
                own.pop("feed_forward"), (as_drawn if layer % 2 else theirs)["feed_forward"]
            )
            theirs.pop("feed_forward")
            _assert_equal(own, theirs)
    taken, as_drawn = in_words(student, from_teacher(student, teacher))
    # Half of the feed-forward layers, each with two matrices of 16 x 32.
    assert as_drawn == "drawn at random: decoder/mlp 1,024, encoder/mlp 2,048"
    assert "encoder/mlp 2,048" in taken and "embedding 1,024" in taken


def test_a_student_with_experts_takes_routers_and_never_experts():
    """Its experts are drawn even where the teacher's have the same shape."""
    drawn, start, given = _start(tiny_model(), tiny_model())
    for stack in ("encoder", "decoder"):
        own, as_drawn, theirs = (
            x[stack]["blocks"]["layer_1"]["feed_forward"] for x in (start, drawn, given)
        )
        _assert_equal(own["router"], theirs["router"])
        for name in ("wi_0", "wo"):
            _assert_equal(own[name], as_drawn[name])
    assert _drawn_names(start) == {
        f"{stack}/blocks/layer_1/feed_forward/{name}"
        for stack in ("decoder", "encoder")
        for name in ("wi_0", "wo")
    }


@pytest.mark.parametrize("layers", [1, 3])
def test_layers_that_the_teacher_lacks_or_has_otherwise_are_drawn(layers):
    """Another number of layers, and of features in the feed-forward layer."""
    student = tiny_model(num_experts=0, num_encoder_layers=layers, mlp_dim=48)
    drawn, start, given = _start(student, tiny_model(sparse_step=1))
    for layer in range(layers):
        own, as_drawn = (_layer(x, "encoder", layer) for x in (start, drawn))
        theirs = _layer(given, "encoder", layer) if layer < 2 else as_drawn
        _assert_equal(own["feed_forward"], as_drawn["feed_forward"])
        for part in ("self_attention", "self_attention_norm", "feed_forward_norm"):
            _assert_equal(own[part], theirs[part])
    _assert_equal(_layer(start, "decoder", 1)["cross_attention"],
                  _layer(given, "decoder", 1)["cross_attention"])  # fmt: skip


@pytest.mark.parametrize(
    ("teacher", "drawn"),
    [
        ({"num_heads": 4, "head_dim": 4}, ["_attention/", "relative_position_bias/"]),
        ({"activation": "gated-gelu"}, ["/wi_0", "/wo"]),
        ({"relative_position_max_distance": 64}, ["relative_position_bias/"]),
        ({"tie_embeddings": False}, ["token_embedding/"]),
        ({"num_key_value_heads": 1}, ["_attention/"]),
    ],
)
def test_tensors_of_the_same_shape_that_mean_something_else_are_drawn(teacher, drawn):
    """Four heads of size 4 have the shapes of two of size 8."""
    student = tiny_model(num_experts=0)
    _, start, _ = _start(student, tiny_model(num_experts=0, **teacher))
    names = flatten_dict(start, sep="/")
    expected = {name for name in names if any(part in name for part in drawn)}
    assert expected and _drawn_names(start) == expected


def test_rotations_by_other_angles_are_of_self_attention_alone():
    slow, fast = (tiny_model(num_experts=0, positions="rotary", rotary_base=b) for b in (1e4, 1e6))
    _, start, _ = _start(slow, fast)
    names = flatten_dict(start, sep="/")
    assert _drawn_names(start) == {name for name in names if "self_attention/" in name}


def test_settings_that_give_parameters_another_meaning_are_listed():
    gated, swish = (tiny_model(activation=name) for name in ("gated-gelu", "swiglu"))
    assert other_meanings(gated, swish) == ["ACTIVATION 'gated-gelu' -> 'swiglu'"]
    rotary = {"positions": "rotary", "qk_norm": True}
    few, many = (tiny_model(rotary_base=base, **rotary) for base in (1e4, 1e6))
    assert other_meanings(few, many) == ["ROTARY_BASE 10000.0 -> 1000000.0"]
    same = tiny_model(num_key_value_heads=2, num_selected_experts=2, norm_epsilon=1e-5)
    assert other_meanings(tiny_model(), same) == []


def test_routers_are_taken_whatever_the_activation():
    _, start, _ = _start(tiny_model(), tiny_model(activation="gated-gelu"))
    assert "encoder/blocks/layer_1/feed_forward/router" not in _drawn_names(start)
