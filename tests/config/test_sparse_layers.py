import pytest

from switch_jax.config.sparse_layers import Blocks, in_blocks, sparse_layers
from switch_jax.utils.errors import UserError
from tests.trainer.helpers import tiny_model


@pytest.mark.parametrize(
    ("layout", "num_layers", "num_sparse", "layers"),
    [
        ("mixed", 12, 6, [1, 3, 5, 7, 9, 11]),
        ("mixed", 12, 2, [5, 11]),
        ("mixed", 4, 4, [0, 1, 2, 3]),
        ("bottom", 12, 3, [0, 1, 2]),
        ("middle", 12, 4, [4, 5, 6, 7]),
        ("middle", 7, 2, [3, 4]),
        ("top", 12, 3, [9, 10, 11]),
        *[(layout, n, 0, []) for layout in ("mixed", "bottom", "middle", "top") for n in (0, 5)],
    ],
)
def test_where_experts_are(layout, num_layers, num_sparse, layers):
    assert sparse_layers(layout, num_layers, num_sparse) == layers


def test_blocks_by_hand():
    assert in_blocks(6, [1, 3, 5]) == [Blocks("blocks", 0, 3, 2, True)]
    assert in_blocks(6, []) == [Blocks("blocks", 0, 6, 1, False)]
    assert in_blocks(3, [0, 1, 2]) == [Blocks("blocks", 0, 3, 1, True)]
    middle = [
        Blocks("blocks", 0, 2, 1, False),
        Blocks("blocks_1", 2, 3, 1, True),
        Blocks("blocks_2", 5, 1, 1, False),
    ]
    assert in_blocks(6, [2, 3, 4]) == middle
    assert [list(its.layers_at(0)) for its in middle] == [[0, 1], [2, 3, 4], [5]]
    assert [list(Blocks("blocks", 0, 3, 2, True).layers_at(place)) for place in (0, 1)] == [
        [0, 2, 4],
        [1, 3, 5],
    ]


def _model(**changes):
    return tiny_model(num_encoder_layers=6, num_decoder_layers=4, num_experts=2, **changes)


def test_each_stack_has_its_own_number():
    model = _model(
        num_encoder_sparse_layers=2, num_decoder_sparse_layers=0, encoder_sparse_layout="top"
    )
    assert [stack.sparse_layers for stack in model.stacks] == [(4, 5), ()]
    # One in SPARSE_STEP layers, where no number is set.
    model = _model(encoder_sparse_layout="bottom")
    assert [stack.sparse_layers for stack in model.stacks] == [(0, 1, 2), (1, 3)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"num_encoder_sparse_layers": 7},
            "num_encoder_sparse_layers = 7, and the encoder has 6 layers$",
        ),
        (
            {"num_decoder_sparse_layers": 3},
            r"num_decoder_sparse_layers = 3 does not divide the 4 layers .* \(4 % 3 = 1\), over",
        ),
        (
            {"num_encoder_sparse_layers": 0, "num_decoder_sparse_layers": 0},
            "num_experts = 2, and .* leave no layer for them",
        ),
        ({"sparse_step": 3}, "sparse_step = 3 does not divide the 4 layers of the decoder"),
    ],
)
def test_what_a_stack_cannot_have_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        _model(**changes)
