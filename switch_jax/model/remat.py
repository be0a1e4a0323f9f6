"""Which activations of a block are kept for its backward pass, and which are computed again."""

from collections.abc import Callable

import jax

from switch_jax.kernels.attention_kernel import ATTENDED
from switch_jax.moe.exchange import EXCHANGED

# Never computed again: that would repeat an all-to-all, or the TPU's attention kernel.
SAVED = (EXCHANGED, ATTENDED)


def rematerialise(block: Callable, policy: str, *, in_loop: bool) -> Callable:
    """The body of a scan, with only what `policy` says saved for its backward pass.

    See `ModelConfig.remat_policy`. `in_loop`: the scan is compiled as a loop, and not as one
    iteration after another.
    """
    if policy == "none":
        return block
    policies = jax.checkpoint_policies
    saved = policies.save_only_these_names(*SAVED)
    if policy == "minimal":
        products = policies.dots_with_no_batch_dims_saveable
        saved = policies.save_from_both_policies(products, saved)
    # In a loop the forward pass and its repetition are separate loops. Outside of one the compiler
    # would find that both compute the same, and keep the first result for the backward pass.
    return jax.checkpoint(block, policy=saved, prevent_cse=not in_loop)
