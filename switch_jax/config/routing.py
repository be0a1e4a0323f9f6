"""How tokens come to the experts of a layer."""

import dataclasses
from typing import Annotated

from switch_jax.config.transformer import Dtype
from switch_jax.utils.fields import Checked, Count, Factor, OneOf, Range, Rate, Use, With


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoutingConfig(Checked):
    """How tokens come to the experts of a layer, and what evens out the load of these.

    Attributes:
      num_selected_experts: k, the experts of a token: 1 in a Switch Transformer, 2 in the MoE of
        Table 1.
      normalize_gates: the gates of several experts are divided by their sum; see `moe.router`. The
        gate of one expert is its probability in any case.
      second_expert_policy: which choices after the first ask for a slot in training: 'all'; or
        'random', each with the probability min(1, gate / second_expert_threshold), as in Mesh
        TensorFlow. In evaluation all do.
      second_expert_threshold: of 'random': from this gate on a choice always asks for a slot.
      ntlb_rounds: how many experts a token may ask for, the most probable first, until one has a
        free slot (No-Token-Left-Behind, App. B; Mesh TensorFlow has 4); 1 = only the first. In
        training and evaluation; cached decoding drops no token.
      train_expert_capacity_factor: slots of an expert over its even share of the tokens, in
        training (Eq. 3, `moe.expert_capacity`). Where experts choose tokens, in evaluation too.
      eval_expert_capacity_factor: the same in evaluation.
      min_expert_capacity: fewest slots of an expert in a group.
      expert_capacity_multiple: slots are rounded up to a multiple of it where that adds few; see
        `moe.expert_capacity`. 8 is fast on a TPU; with 1 nothing is rounded.
      jitter_noise: the router's input is multiplied by noise from 1 - jitter_noise to 1 +
        jitter_noise in training (App. C).
      router_policy: how an expert is chosen in training (App. C, Table 11). 'argmax': the most
        probable one. 'sample': one drawn from the router's softmax, whose probability is the gate.
        'input_dropout': the most probable one after dropout on the router's input, in place of
        jitter. Evaluation and decoding take the argmax without noise.
      router_input_dropout_rate: dropout rate of 'input_dropout'.
      load_balance: what evens out the load of the experts. 'loss': the load-balancing loss, with
        the coefficient `LossConfig.aux_loss_factor` (Eq. 4). 'bias': a bias for each expert, which
        is added to a token's standardised logits in the choice of experts
        (`moe.tokens_choose`), never in the gate, and which each step moves up or down by
        `OptimizerConfig.router_bias_update_rate`, after DeepSeek-V3. 'none'. The loss is recorded
        in any case.
      router_dtype: dtype in which the router computes, from its input to what its losses take:
        'float32', whatever activation_dtype is (selective precision, section 2.4), or 'bfloat16'
        (Table 2).
    """

    num_selected_experts: Annotated[Count, With("num_experts")] = 1
    normalize_gates: bool = True
    second_expert_policy: Annotated[
        str, OneOf("all", "random"), With("num_selected_experts", range(2, 2**31)), Use.TRAINING
    ] = "all"
    second_expert_threshold: Annotated[float, Range(0, 1, excluded_end="least"), Use.TRAINING] = 0.2
    ntlb_rounds: Annotated[Count, With("num_experts"), With("num_selected_experts", (1,))] = 1
    train_expert_capacity_factor: Annotated[Factor, Use.TRAINING] = 1.25
    eval_expert_capacity_factor: Annotated[Factor, Use.TUNABLE] = 2.0
    min_expert_capacity: Annotated[Count, Use.TUNABLE] = 4
    expert_capacity_multiple: Annotated[Count, Use.TUNABLE] = 8
    jitter_noise: Annotated[Rate, Use.TRAINING] = 1e-2
    router_policy: Annotated[
        str,
        OneOf("argmax", "sample", "input_dropout"),
        With("jitter_noise", (0,), of="input_dropout"),  # it takes its place
        Use.TRAINING,
    ] = "argmax"
    router_input_dropout_rate: Annotated[Rate, Use.TRAINING] = 0.1
    load_balance: Annotated[
        str,
        OneOf("loss", "bias", "none"),
        With("num_experts", of="bias"),
        With("router_policy", ("argmax", "input_dropout"), of="bias"),  # by the highest probability
        Use.TRAINING,
    ] = "loss"
    router_dtype: Dtype = "float32"

    @property
    def router_input_dropout(self) -> float:
        """The rate of dropout on the router's input under the policy."""
        is_used = self.router_policy == "input_dropout"
        return self.router_input_dropout_rate if is_used else 0.0
