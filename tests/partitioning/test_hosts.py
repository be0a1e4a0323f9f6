"""What one process can check; tests/training/test_many_hosts.py has real ones."""

import pytest

from switch_jax.errors import UserError
from switch_jax.partitioning import hosts


@pytest.mark.parametrize(
    ("address", "count", "index"),
    [("localhost:1", None, None), (None, 2, 0), ("localhost:1", 2, None)],
)
def test_flags_that_belong_together(address, count, index):
    with pytest.raises(UserError, match="--process_index belong together: give all three"):
        hosts.connect(address, count, index)


@pytest.mark.parametrize("index", [-1, 2])
def test_an_index_that_no_process_has(index):
    with pytest.raises(UserError, match=f"--process_index={index}: write a number from 0 to 1"):
        hosts.connect("localhost:1", 2, index)


def test_alone_everything_is_agreed():
    assert hosts.is_first()
    assert hosts.gather({"a": [1, 2.5, None]}) == [{"a": [1, 2.5, None]}]
    hosts.all_agree(None)
    with pytest.raises(UserError, match="^the disk is full$"):
        hosts.all_agree("the disk is full")
