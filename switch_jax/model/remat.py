"""Which activations of a block are kept for its backward pass, and which are computed again."""

from collections.abc import Callable

import jax

from switch_jax.kernels.attention_kernel import ATTENDED
from switch_jax.moe.exchange import EXCHANGED

# Never computed again: the first would take an all-to-all, the second the attention kernel.
SAVED = (EXCHANGED, ATTENDED)


def rematerialise(block: Callable, policy: str, *, in_loop: bool) -> Callable:
    """The same function, whose backward pass finds saved only what the policy says.

    Args:
      block: from activations and parameters to activations; the body of a scan.
      policy: see `ModelConfig.remat_policy`.
      in_loop: whether the compiled scan is a loop, and not its iterations one after the other.
    """
    if policy == "none":
        return block
    policies = jax.checkpoint_policies
    saved = policies.save_only_these_names(*SAVED)
    if policy == "minimal":
        products = policies.dots_with_no_batch_dims_saveable
        saved = policies.save_from_both_policies(products, saved)
    # Loops keep the forward pass and its repetition apart. Outside of one the compiler would find
    # that they compute the same, and keep the first for the backward pass.
    return jax.checkpoint(block, policy=saved, prevent_cse=not in_loop)
