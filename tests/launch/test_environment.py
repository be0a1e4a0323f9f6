import tomllib

import pytest

from switch_jax.hardware import GENERATIONS, parse_slice
from switch_jax.launch.environment import FILE, environment

OVERLAP = (
    "--xla_tpu_enable_data_parallel_all_reduce_opt=true "
    "--xla_tpu_data_parallel_opt_different_sized_ops=true"
)


@pytest.mark.parametrize(
    ("topology", "flags"),
    [("v5e-256", None), ("4xv5e-256", OVERLAP), ("2xv5p-256", OVERLAP), ("2xv4-64", None)],
)
def test_flags_of_a_slice(topology, flags):
    found = environment(parse_slice(topology))
    assert found["JAX_PLATFORMS"] == "tpu,cpu"
    assert found.get("LIBTPU_INIT_ARGS") == flags


def test_every_entry_has_a_reason_and_a_source_and_known_generations():
    entries = tomllib.loads(FILE.read_text())
    for entry in entries["variable"] + entries["flag"]:
        assert len(entry["reason"]) > 20 and len(entry["source"]) > 20
        assert set(entry.get("generations", [])) <= set(GENERATIONS)
