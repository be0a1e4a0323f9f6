import pytest

from switch_jax.hardware import parse_slice
from switch_jax.launch.environment import environment

OVERLAP = (
    "--xla_tpu_enable_data_parallel_all_reduce_opt=true "
    "--xla_tpu_data_parallel_opt_different_sized_ops=true"
)


@pytest.mark.parametrize(
    ("topology", "flags"),
    [
        ("v5e-256", None),
        ("4xv5e-256", OVERLAP),
        ("2xv5p-256", OVERLAP),
        ("2xv6e-256", OVERLAP),
        ("2xv4-64", None),
    ],
)
def test_flags_of_a_slice(topology, flags):
    found = environment(parse_slice(topology))
    assert found["JAX_PLATFORMS"] == "tpu,cpu"
    assert found.get("LIBTPU_INIT_ARGS") == flags
