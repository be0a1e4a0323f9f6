import numpy as np
import pytest

from switch_jax.train_step.microbatches import check_batch, routing_groups, split
from switch_jax.utils.errors import UserError
from tests.trainer.helpers import tiny_config, tiny_model


@pytest.mark.parametrize(
    ("changes", "batch", "parts", "message"),
    [
        ({}, 12, 1, r"batch size 12 does not divide over data x expert = 8.*12 % 8 = 4.*multiple"),
        ({}, 24, 2, r"batch size 24 .*2 microbatches \(24 % 16 = 8\)"),
        # Another batch would not help.
        ({"num_experts": 6}, 18, 1, r"NUM_EXPERTS = 6 and MESH_EXPERT = 4: neither divides"),
        ({"group_size": 64}, 16, 1, r"^GROUP_SIZE = 64 does not fit.* set GROUP_SIZE to 32"),
        ({"group_size": 10}, 16, 1, r"^GROUP_SIZE = 10 does not fit.*16 % 10 = 6"),
        (
            {"group_size": 32, "decoder_group_size": 8}, 32, 4,
            r"^GROUP_SIZE = 32 does not fit: groups take 2 whole rows of 16.* GROUP_SIZE to 16 or",
        ),
        # 32 fits the encoder, and makes groups of 4 rows in the decoder.
        (
            {"group_size": 32}, 16, 1,
            r"^DECODER_GROUP_SIZE = 32 .*4 groups of 32.* set DECODER_GROUP_SIZE to 16 or less",
        ),
    ],
)  # fmt: skip
def test_a_batch_that_does_not_divide_is_refused_with_the_numbers(changes, batch, parts, message):
    mesh = {"data": 2, "expert": 4, "model": 1}
    with pytest.raises(UserError, match=message):
        check_batch(tiny_config(tiny_model(**changes), batch, num_microbatches=parts), mesh)


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({"num_experts": 0}, 1),
        ({"group_size": 32, "decoder_group_size": 8}, 2),  # two rows of 16 inputs in a group
        ({"group_size": 16, "decoder_group_size": 32}, 4),  # four rows of 8 targets
        ({"group_size": 48, "decoder_group_size": 16}, 6),  # three and two
    ],
)
def test_a_microbatch_takes_every_second_of_the_groups_of_rows_that_stay_together(changes, rows):
    tokens = np.arange(24)[:, None]
    batch = {
        "encoder_segment_ids": np.repeat(tokens, 16, 1),
        "decoder_segment_ids": np.repeat(tokens, 8, 1),
    }
    groups = np.arange(24).reshape(-1, 2, rows)
    for name, array in split([tiny_model(**changes)], batch, 2).items():
        assert array.shape == (2, 12, batch[name].shape[1])
        for part in (0, 1):
            assert array[part, :, 0].tolist() == groups[:, part].reshape(-1).tolist()


def test_the_groups_of_a_run_are_those_of_its_whole_batch():
    config = tiny_config(tiny_model(group_size=4096), 8, num_microbatches=2)
    found = routing_groups(config)
    # A device has one row of a microbatch at once, but groups are of the whole batch.
    assert {stack: groups.tokens for stack, groups in found.items()} == {
        "encoder": 8 * 16,
        "decoder": 8 * 8,
    }
