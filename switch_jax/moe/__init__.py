"""The Switch layer as pure functions of arrays: routing, dispatch, experts (sections 2.1 and 2.2).

The letters for the axes, here and everywhere:

    B batch          L length           D d_model        F d_ff
    G routing groups S tokens per group E experts        C slots per expert and group (capacity)
    H heads          K head size        V vocabulary     N layers
    M keys           W half the width of the position bias
    k experts of a token: 1 in a Switch Transformer

`switch_ffn` is the layer. A token passes through it like this:

    router -> slots -> gather -> all-to-all -> experts -> all-to-all -> gather -> gate
"""

from switch_jax.moe.capacity import capacity_of, expected_drop, expert_capacity, group_shape
from switch_jax.moe.dispatch import Assignment, ChosenTokens
from switch_jax.moe.dropless import dropless_ffn
from switch_jax.moe.experts import SwitchWeights
from switch_jax.moe.experts_choose import choose_tokens
from switch_jax.moe.layer import switch_ffn
from switch_jax.moe.losses import load_balance_loss, router_z_loss
from switch_jax.moe.policies import make_router
from switch_jax.moe.random_streams import LayerKey
from switch_jax.moe.router import Distribution, router_logits
from switch_jax.moe.slots import assign_choices
from switch_jax.moe.statistics import (
    Choices,
    RouterOutput,
    RouterStatistics,
    by_join,
    join_devices,
)
from switch_jax.moe.tokens import Tokens
from switch_jax.moe.top_1 import assign
