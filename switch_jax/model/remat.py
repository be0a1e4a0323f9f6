"""Which activations of a block are kept for its backward pass, and which are computed again."""

from collections.abc import Callable

import jax

from switch_jax.kernels.attention_kernel import ATTENDED
from switch_jax.moe.exchange import EXCHANGED

# Never computed again: that would repeat an all-to-all, or the TPU's attention kernel.
_NAMED = jax.checkpoint_policies.save_only_these_names(EXCHANGED, ATTENDED)
_PRODUCTS = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
# What is saved by `ModelConfig.remat_policy`; None: everything.
SAVED = {
    "none": None,
    "minimal": jax.checkpoint_policies.save_from_both_policies(_PRODUCTS, _NAMED),
    "full": _NAMED,
}


def rematerialise(block: Callable, policy: str, *, in_loop: bool) -> Callable:
    """The body of a scan, with only what `policy` says saved for its backward pass.

    See `ModelConfig.remat_policy`. `in_loop`: the scan is compiled as a loop, and not as one
    iteration after another.
    """
    saved = SAVED[policy]
    if saved is None:
        return block
    # In a loop the forward pass and its repetition are separate loops. Outside of one the compiler
    # would find that both compute the same, and keep the first result for the backward pass.
    return jax.checkpoint(block, policy=saved, prevent_cse=not in_loop)
