"""A model that is asked on other devices, and in other batches, than those of its training."""

import dataclasses

import jax
import numpy as np
import pytest

from switch_jax import gin_config
from switch_jax.config import MeshConfig
from switch_jax.inference import DecodingConfig
from switch_jax.inference.batch_and_mesh import fit_batch, mesh_for_inference
from switch_jax.inference.predictor import Predictor
from switch_jax.moe import capacity_of
from switch_jax.utils.errors import FieldError, UserError
from tests.inference.parameters import parameters
from tests.trainer.helpers import tiny_config, tiny_model

ONE, TWO, EIGHT = ({"data": d, "expert": e, "model": 1} for d, e in ((1, 1), (1, 2), (2, 4)))
L, EOS = 8, 1
# 4 rows of 16 tokens in a group of the encoder, and 8 rows of 8 in one of the decoder: 32 slots.
MODEL = tiny_model(num_embeddings=8, group_size=64, eval_expert_capacity_factor=2.0)
ALONE = dataclasses.replace(MODEL, group_size=16, decoder_group_size=8)
# Any 4 of these have room in 32 slots; the first has not in the 8 of a row by itself.
INPUTS = [[5] * 13 + [1], [3, 1], [2, 7, 4, 1], [6, 1], [1], [2, 2, 1], [4, 5, 3, 1], [3] * 11]
TARGETS = [[2] * 7 + [1], [4, 1], [1], [2, 6, 1], [], [3, 3, 5, 2, 1], [6] * 6, [1]]
EXAMPLES = [
    {"inputs": np.array(i, np.int32), "targets": np.array(t, np.int32)}
    for i, t in zip(INPUTS, TARGETS, strict=True)
]


def answers(config, shape, examples):
    """The scores, and the predictions up to EOS."""
    mesh = mesh_for_inference(config.replace("mesh", **shape), is_given=True)
    predictor = Predictor(config, mesh, DecodingConfig(L, eos_id=EOS))
    with jax.set_mesh(mesh):
        given = parameters(MODEL)
        scores = list(predictor.score(given, examples))
        return scores, [
            prediction.tokens.tolist() for prediction in predictor.predict(given, examples)
        ]


@pytest.fixture(scope="module")
def one_by_one():
    """Each row in a batch of its own, with room for all of its tokens at each expert."""
    room = dataclasses.replace(ALONE, eval_expert_capacity_factor=4.0)
    found = answers(tiny_config(room, batch_size=1), ONE, EXAMPLES)
    tight = answers(tiny_config(ALONE, batch_size=1), ONE, EXAMPLES[:1])
    assert abs(tight[0][0] - found[0][0]) > 1e-3, "the slots of a row alone are too few"
    return found


@pytest.mark.parametrize(
    ("batch_size", "shape"), [(1, ONE), (7, ONE), (7, TWO), (8, TWO), (1, EIGHT)], ids=str
)
def test_a_row_does_not_depend_on_the_batch(one_by_one, batch_size, shape):
    """Of 8 examples; the last batch of 7 is filled up with empty rows."""
    config = fit_batch(tiny_config(MODEL, batch_size=64), shape, batch_size)
    assert batch_size <= config.run.batch_size <= 8
    scores, predictions = answers(config, shape, EXAMPLES)
    np.testing.assert_allclose(scores, one_by_one[0], rtol=1e-5)
    assert predictions == one_by_one[1]


def demo(**model):
    config = gin_config.read(["runs/demo_switch.gin"]).config  # 256 rows on 1 x 2 devices
    return config.replace("model", **model)


@pytest.mark.parametrize(
    ("batch_size", "shape", "rows", "encoder", "decoder"),
    [
        (8, TWO, 8, 4, 4),  # 4 rows on each device, of which groups in training have 32 and 128
        (7, TWO, 8, 4, 4),
        (1, EIGHT, 8, 1, 1),
        (40, ONE, 40, 20, 40),
        (97, ONE, 100, 25, 100),  # 97 rows make no groups but of one row, 98 groups of 14
        (None, EIGHT, 256, 32, 32),
    ],
)
def test_rows_are_added_until_groups_fit(batch_size, shape, rows, encoder, decoder):
    config = fit_batch(demo(), shape, batch_size)
    assert config.run.batch_size == rows
    assert [stack.group_size for stack in config.model.stacks] == [32 * encoder, 8 * decoder]
    # The slots of a whole group, 1024 tokens x 2 / 8 experts, or a little more.
    for stack in config.model.stacks:
        tokens, factor = stack.group_size, stack.eval_expert_capacity_factor
        assert capacity_of(config.model, tokens, factor) >= min(tokens, 256)


def test_what_fits_is_left_as_it_is():
    config = demo()
    for batch_size in (None, 256):
        assert fit_batch(config, TWO, batch_size) == config
    several = config.replace("run", num_microbatches=2)
    assert fit_batch(several, TWO, None) == config
    with pytest.raises(FieldError, match="^batch_size = 0: "):
        fit_batch(config, TWO, 0)
    with pytest.raises(UserError, match="NUM_EXPERTS = 8 and MESH_EXPERT = 3: neither"):
        fit_batch(config, {"data": 1, "expert": 3, "model": 1}, 8)


def test_experts_that_choose_get_their_share_of_the_rows_that_there_are():
    config = fit_batch(demo(encoder_router_type="experts_choose"), ONE, 8)
    encoder, decoder = config.model.stacks
    factor = config.model.train_expert_capacity_factor
    assert (encoder.group_size, encoder.eval_expert_capacity_factor) == (8 * 32, factor)
    assert decoder.eval_expert_capacity_factor == 2.0 * 128 / 8


@pytest.mark.parametrize(
    ("mesh", "experts", "wanted"),
    [
        ((1, 2, 1), 8, (1, 2, 1)),  # it fits: of 8 CPU devices it takes two
        ((None, 2, 2), 8, (2, 2, 2)),
        ((1, 64, 1), 64, (1, 8, 1)),
        ((2, 16, 4), 6, (4, 2, 1)),
        ((64, 1, 1), 0, (8, 1, 1)),
    ],
)
def test_the_mesh_is_the_runs_or_one_for_the_devices(mesh, experts, wanted):
    config = demo(num_experts=experts).replace("mesh", **dataclasses.asdict(MeshConfig(*mesh)))
    found = mesh_for_inference(config, is_given=False)
    assert tuple(found.shape.values()) == wanted
    if mesh != wanted and None not in mesh:
        with pytest.raises(UserError, match="the number of cpu devices is 8"):
            mesh_for_inference(config, is_given=True)
