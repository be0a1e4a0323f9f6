from switch_jax.hardware.tpus import parse_slice
from switch_jax.launch.environment import environment


def test_only_several_slices_of_newer_generations_have_flags_of_libtpu():
    for topology in ("v5e-256", "2xv4-64", "4xv5e-256", "2xv5p-256", "2xv6e-256"):
        found = environment(parse_slice(topology))
        assert found["JAX_PLATFORMS"] == "tpu,cpu"
        wanted = topology not in ("v5e-256", "2xv4-64")
        assert ("LIBTPU_INIT_ARGS" in found) == wanted, topology
