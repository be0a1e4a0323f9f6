"""What a student takes from its teacher, tensor by tensor."""

import jax
import numpy as np
import pytest

from switch_jax.conversion.teacher_weights import TeacherWeights, in_words
from switch_jax.model import abstract_parameters
from tests.trainer.helpers import tiny_model


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
    """The weights, the student's parameters as drawn and at the start, and the teacher's."""
    weights = TeacherWeights(student, teacher)
    drawn, given = _numbered(student, 0), _numbered(teacher, 100_000)
    return weights, drawn, weights.apply(drawn, weights.needed(given)), given


def _layer(parameters, stack, layer):
    """The parameters of one layer, counted from 0."""
    block, place = divmod(layer, len(parameters[stack]["blocks"]))
    blocks = parameters[stack]["blocks"][f"layer_{place}"]
    return jax.tree.map(lambda x: np.asarray(x[block]), blocks)


def _assert_equal(tree, expected):
    jax.tree.map(np.testing.assert_array_equal, tree, expected)


def test_a_dense_student_takes_all_but_the_places_of_the_experts():
    student = tiny_model(num_experts=0, num_encoder_layers=4)
    teacher = tiny_model(num_encoder_layers=4)  # layers 1 and 3 are sparse
    weights, drawn, start, given = _start(student, teacher)
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
    assert weights.drawn == [
        f"{stack}/layer_{layer}/feed_forward/{name}"
        for stack, name, layer in [
            ("decoder", "wi_0", 1), ("decoder", "wo", 1), ("encoder", "wi_0", 1),
            ("encoder", "wi_0", 3), ("encoder", "wo", 1), ("encoder", "wo", 3),
        ]
    ]  # fmt: skip
    assert not set(weights.taken) & set(weights.drawn)


def test_a_student_with_experts_takes_routers_and_never_experts():
    """Its experts are drawn even where the teacher's have the same shape."""
    weights, drawn, start, given = _start(tiny_model(), tiny_model())
    for stack in ("encoder", "decoder"):
        own, as_drawn, theirs = (
            x[stack]["blocks"]["layer_1"]["feed_forward"] for x in (start, drawn, given)
        )
        _assert_equal(own["router"], theirs["router"])
        for name in ("wi_0", "wo"):
            _assert_equal(own[name], as_drawn[name])
    expected = [
        f"{s}/layer_1/feed_forward/{n}" for s in ("decoder", "encoder") for n in ("wi_0", "wo")
    ]
    assert sorted(weights.drawn) == expected


@pytest.mark.parametrize("layers", [1, 3])
def test_layers_that_the_teacher_lacks_or_has_otherwise_are_drawn(layers):
    """Another number of layers, and of features in the feed-forward layer."""
    student = tiny_model(num_experts=0, num_encoder_layers=layers, mlp_dim=48)
    teacher = tiny_model(sparse_step=1)
    weights, drawn, start, given = _start(student, teacher)
    for layer in range(layers):
        own, as_drawn = (_layer(x, "encoder", layer) for x in (start, drawn))
        theirs = _layer(given, "encoder", layer) if layer < 2 else as_drawn
        _assert_equal(own["feed_forward"], as_drawn["feed_forward"])
        _assert_equal(own["self_attention"], theirs["self_attention"])
    lacking = {name for name in weights.drawn if "feed_forward/w" not in name}
    assert bool(lacking) == (layers == 3)
    assert all(name.startswith("encoder/layer_2/") for name in lacking)


@pytest.mark.parametrize(
    ("teacher", "drawn"),
    [
        ({"num_heads": 4, "head_dim": 4}, ["_attention/", "relative_position_bias/"]),
        ({"activation": "gated-gelu"}, ["/wi_0", "/wo"]),
        ({"relative_position_max_distance": 64}, ["relative_position_bias/"]),
        ({"tie_embeddings": False}, ["token_embedding/"]),
    ],
)
def test_tensors_of_the_same_shape_that_mean_something_else_are_drawn(teacher, drawn):
    """Four heads of size 4 have the shapes of two of size 8."""
    student = tiny_model(num_experts=0)
    weights = TeacherWeights(student, tiny_model(num_experts=0, **teacher))
    names = weights.taken + weights.drawn
    expected = [name for name in names if any(part in name for part in drawn)]
    assert expected and sorted(weights.drawn) == sorted(expected)


def test_routers_are_taken_whatever_the_activation():
    weights = TeacherWeights(tiny_model(), tiny_model(activation="gated-gelu"))
    assert "encoder/layer_1/feed_forward/router" in weights.taken


def test_only_what_is_taken_is_needed_of_the_teacher():
    teacher = tiny_model()
    needed = TeacherWeights(tiny_model(num_experts=0), teacher).needed(_numbered(teacher, 0))
    assert sorted(needed["encoder"]["blocks"]["layer_1"]) == [
        "feed_forward_norm", "self_attention", "self_attention_norm"
    ]  # fmt: skip


def test_names_of_several_layers_are_written_as_one():
    names = [
        "token_embedding/embedding",
        "encoder/layer_0/norm/scale",
        "encoder/layer_2/norm/scale",
    ]
    assert in_words(names) == "token_embedding/embedding, encoder/layer_{0,2}/norm/scale"
