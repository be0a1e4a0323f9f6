"""The environment variables of the hosts, in addition to those of the container.

The list is short on purpose. The flags that made collectives asynchronous on v5e and v5p are now
libtpu's defaults (openxla.org/xla/flags_guidance), and limits of VMEM that help one model hurt
another: measure yours with `switch_jax plan` before you add any.
"""

from switch_jax.hardware.tpus import Slice

# A host whose TPU does not start stops with an error, instead of training on its CPUs
# (docs.jax.dev, configuration options: jax_platforms).
_PLATFORMS = "tpu,cpu"
# Of several slices, which the data-centre network connects: all-reduces of gradients between them
# overlap with the rest of the backward pass, and so do those of gradients of different sizes. From
# github.com/AI-Hypercomputer/maxtext (Apache-2.0), benchmarks/xla_flags_library.py:
# DATA_PARALLEL_OVERLAP, used in its configs for these generations.
_OVERLAP = (
    "--xla_tpu_enable_data_parallel_all_reduce_opt=true "
    "--xla_tpu_data_parallel_opt_different_sized_ops=true"
)
_WITH_OVERLAP = ("v5e", "v5p", "v6e")


def environment(hardware: Slice) -> dict[str, str]:
    """The variables of every host of these slices, including libtpu's flags."""
    variables = {"JAX_PLATFORMS": _PLATFORMS}
    if hardware.count > 1 and hardware.generation.name in _WITH_OVERLAP:
        variables["LIBTPU_INIT_ARGS"] = _OVERLAP
    return variables
