"""The Switch layer as pure functions of arrays: routing, dispatch, expert computation.

Letters for the axes, here and everywhere:

    B batch          L length           D d_model        F d_ff
    G routing groups S tokens per group E experts        C slots per expert and group (capacity)
    H heads          K head size        V vocabulary     N layers

The way of a token:

    router -> slots -> gather -> all-to-all -> experts -> all-to-all -> gather -> gate
"""

from switch_jax.moe.routing import (
    Assignment,
    assign,
    capacity,
    expected_drop,
    group_shape,
    load_balance_loss,
    router_z_loss,
)

__all__ = [
    "Assignment",
    "assign",
    "capacity",
    "expected_drop",
    "group_shape",
    "load_balance_loss",
    "router_z_loss",
]
