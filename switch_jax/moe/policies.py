"""The routing policy that a config names."""

from switch_jax.config import ModelConfig
from switch_jax.config.stack import StackConfig
from switch_jax.moe.experts_choose import ExpertsChoose
from switch_jax.moe.no_token_left_behind import NoTokenLeftBehind
from switch_jax.moe.routing import Router
from switch_jax.moe.tokens_choose import TokensChoose

# By `ModelConfig.encoder_router_type`. 'batch_prioritized' gives the slots in another order.
POLICIES: dict[str, type[Router]] = {
    "tokens_choose": TokensChoose,
    "batch_prioritized": TokensChoose,
    "experts_choose": ExpertsChoose,
}


def make_router(config: ModelConfig, stack: StackConfig, first_index: int = 0) -> Router:
    """The routing policy of a layer; see `Router`."""
    policy = POLICIES[stack.router_type]
    if policy is TokensChoose and config.ntlb_rounds > 1:
        policy = NoTokenLeftBehind
    return policy(config, stack, first_index)
