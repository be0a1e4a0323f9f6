import pytest

from switch_jax.config import DataConfig
from switch_jax.utils.errors import UserError


@pytest.mark.parametrize(
    "lengths",
    [
        {"inputs": 128},
        {"inputs": 128, "targets": 0},
        {"inputs": 128, "targets": 10**30},
        {"inputs": 1e30, "targets": 32},
    ],
)
def test_lengths_must_be_given_and_positive_and_not_out_of_proportion(lengths):
    with pytest.raises(UserError, match="task_feature_lengths.*'targets'"):
        DataConfig("english_span_corruption", lengths)
