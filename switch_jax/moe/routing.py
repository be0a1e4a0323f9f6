"""What all routing policies have in common; each is a class in a file of its own."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import lax

from switch_jax.config import ModelConfig
from switch_jax.config.stack import StackConfig
from switch_jax.moe.capacity import capacity_of, group_shape
from switch_jax.moe.dispatch import Assignment, ChosenTokens
from switch_jax.moe.random_streams import RouterKey, Stream
from switch_jax.moe.router import Distribution, router_logits
from switch_jax.moe.slots import assign_choices
from switch_jax.moe.tokens import Tokens
from switch_jax.partitioning.collectives import own_width

Bias = jax.Array | None  # `SwitchWeights.router_bias`


@dataclasses.dataclass(frozen=True)
class Router:
    """A routing policy with its settings: who chooses whom, and who gets a slot.

    A policy is a subclass with `choose`; `policies.make_router` takes the one that a config names.
    Training, decoding and what shows choices all ask the same object. It has no arrays: the
    router's kernel and bias are among the `SwitchWeights`.

    Attributes:
      config: its experts, policies and noise.
      stack: that of its layer: who chooses, group size and capacity.
      first_index: of the routers of the stack, the number of the one in layer 0. Routers with the
        same key and different numbers have different noise.
    """

    config: ModelConfig
    stack: StackConfig
    first_index: int = 0

    def choose(
        self, distribution: Distribution, tokens: Tokens, bias: Bias, key: RouterKey | None
    ) -> tuple[jax.Array, jax.Array]:
        """The experts of each token, whether or not they have a slot for it.

        Args:
          distribution: of logits [G, S, E].
          tokens: [G, S].
          bias: [E] or None, see `SwitchWeights.router_bias`.
          key: for what is drawn in training; None = evaluation or decoding.

        Returns:
          [G, k, S] int32, different experts, the best one first, E = none; and their gates
          [G, k, S] float32.
        """
        raise NotImplementedError

    def asks(self, gates: jax.Array, key: RouterKey | None) -> jax.Array | None:
        """[G, k, S] bool, which of the choices ask for a slot; None = all do."""
        del gates, key
        return None

    def assign(
        self, logits: jax.Array, tokens: Tokens, bias: Bias, capacity: int, key: RouterKey | None
    ) -> Assignment | ChosenTokens:
        """Gives each token of [G, S] slots in the experts that it chooses, while C slots each last.

        `logits` are [G, S, E]; `bias` and `key` are as for `choose`.
        """
        distribution = Distribution.of(logits)
        choices, gates = self.choose(distribution, tokens, bias, key)
        asks, order = self.asks(gates, key), self.order(distribution, choices)
        return assign_choices(choices, gates, distribution, capacity, tokens.valid, asks, order)

    def order(self, distribution: Distribution, choices: jax.Array) -> jax.Array | None:
        """[G, S] int32, the tokens in the order in which they take slots; None = as they stand.

        Batch-prioritised, those whose first choice is most probable come first (Riquelme et al.
        2021, arXiv 2106.05974, section 4.1). Among equal ones it is the earlier token.
        """
        if self.stack.router_type != "batch_prioritized":
            return None
        gate = distribution.gates(choices[:, :1])[:, 0]  # [G, S]
        return jnp.argsort(gate, axis=1, descending=True, stable=True).astype(jnp.int32)

    def logits(
        self,
        x: jax.Array,
        kernel: jax.Array,
        key: RouterKey | None = None,
        sum_over: tuple[str, ...] = (),
    ) -> jax.Array:
        """[B, L, D], [D, E] -> [B, L, E], with a key from noisy input; see `router_logits`."""
        jitter, dropout = self.config.jitter_noise, self.config.router_input_dropout
        bits = None
        if key is not None and (jitter > 0 or dropout > 0):
            *rows, features = x.shape  # this device's
            whole = features * math.prod(map(lax.axis_size, sum_over))  # D
            bits = key.bits(Stream.ROUTER_INPUT, (*rows, whole))
            for axis in sum_over:
                bits = bits._replace(feature=own_width(bits.feature, axis))  # [B, D_local]
        return router_logits(x, kernel, jitter, bits, dropout, sum_over)

    def group_shape(self, batch: int, length: int) -> tuple[int, int]:
        """(G, S) of [B, L] tokens."""
        return group_shape(batch, length, self.stack.group_size)

    def capacity(self, size: int, *, training: bool) -> int:
        """C of groups of S tokens (Eq. 3)."""
        return capacity_of(self.config, size, self.stack.capacity_factor(training=training))
