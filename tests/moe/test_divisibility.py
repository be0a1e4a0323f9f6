import pytest

from switch_jax.errors import UserError
from switch_jax.moe.divisibility import check_divisibility


def test_what_does_not_divide_is_refused_with_the_equation():
    mesh = {"data": 2, "expert": 4, "model": 1}
    with pytest.raises(UserError, match=r"6 experts do not divide.*6 % 4 = 2"):
        check_divisibility(8, 64, 6, 64, mesh, "GROUP_SIZE")
    with pytest.raises(UserError, match=r"GROUP_SIZE = 256.*4 groups of 256.*= 8.*to 128"):
        check_divisibility(16, 64, 8, 256, mesh, "GROUP_SIZE")
