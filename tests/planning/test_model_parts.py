"""Parts of the model, by the scopes of an operation."""

import pytest

from switch_jax.planning.model_parts import model_part


@pytest.mark.parametrize(
    ("op_name", "part"),
    [
        ("jit(step)/jvp()/while/body/attention/dot_general", "attention"),
        ("jit(step)/optimizer/experts/mul", "experts"),  # the innermost scope
        ("jit(step)/while/body/my_attention/add", "other"),  # part of a word
        ("", "other"),
    ],
)
def test_the_innermost_scope_decides(op_name, part):
    assert model_part(op_name) == part
