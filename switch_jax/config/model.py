"""The sizes and choices of a model."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Annotated, Any

from switch_jax.config.sparse_layers import LAYOUTS, check_sparse_layers, sparse_layers
from switch_jax.config.stack import StackConfig
from switch_jax.utils.errors import FieldError
from switch_jax.utils.fields import (
    Count,
    Factor,
    OneOf,
    Range,
    Rate,
    Use,
    With,
    check_fields,
    uses,
)

ROUTER_POLICIES = ("argmax", "sample", "input_dropout")
REMAT_POLICIES = ("none", "minimal", "full")
# The sublayers with experts, in the order in which tokens pass them.
SUBLAYERS = {
    "feed_forward": ("feed_forward",),
    "attention": ("attention",),
    "both": ("attention", "feed_forward"),
}
# What contradicts each other.
_APART = (
    ("load_balance", "bias", "num_experts", 0),
    # The bias evens out what tokens choose by the highest probability.
    ("load_balance", "bias", "encoder_router_type", "experts_choose"),
    ("load_balance", "bias", "router_policy", "sample"),
    ("router_policy", "sample", "encoder_router_type", "experts_choose"),
)

Size = Annotated[int, Range(1, 2**20)]
Layers = Annotated[int, Range(1, 10_000)]
SparseLayers = Annotated[int, Range(0, 10_000), Use.SHAPES]
Layout = Annotated[str, OneOf(*LAYOUTS), Use.SHAPES]
Dtype = Annotated[str, OneOf("bfloat16", "float32"), Use.TUNABLE]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A T5 encoder-decoder, dense or sparse (section 2; sizes in Table 9).

    Attributes:
      num_embeddings: V, rows of the embedding table; at least the ids of the vocabulary.
      embed_dim: D.
      mlp_dim: F of the dense feed-forward layers.
      head_dim: K, size of one attention head.
      num_heads: H.
      num_encoder_layers, num_decoder_layers: N of each stack.
      activation: 'relu' (T5 1.0) or 'gated-gelu' (T5 1.1: two input projections, one through GELU).
      tie_embeddings: the logits reuse the token embedding, scaled by D^-0.5 (T5 1.0).
      num_experts: E of every Switch layer; 0 = dense.
      expert_mlp_dim: F of one expert; None = mlp_dim, so that the FLOPs are those of the dense
        model.
      num_selected_experts: k, the experts of a token: 1 in a Switch Transformer, 2 in the MoE of
        Table 1. The gates of several are renormalised; see `moe.router`.
      second_expert_policy: which choices after the first ask for a slot in training: 'all'; or
        'random', each with the probability min(1, gate / second_expert_threshold), as in Mesh
        TensorFlow. In evaluation all do.
      second_expert_threshold: of 'random'.
      ntlb_rounds: how many experts a token may ask for, the most probable first, until one has a
        free slot (No-Token-Left-Behind, App. B; Mesh TensorFlow has 4); 1 = only the first. In
        training and evaluation; cached decoding drops no token.
      shared_expert_mlp_dim: F of a dense layer beside the experts of each Switch layer, which all
        tokens go through; None = there is none. Experts in attention have none.
      sparse_step: a layer in this many has experts: 2 = layers 1, 3, 5, ... counted from 0 ("expert
        freq 1/2"), 1 = all.
      num_encoder_sparse_layers, num_decoder_sparse_layers: how many layers of the stack have
        experts, 0 included; None = one in `sparse_step`.
      encoder_sparse_layout, decoder_sparse_layout: where they are: 'mixed' spreads them evenly;
        'bottom', 'middle', 'top'. See `sparse_layers.sparse_layers`.
      expert_sublayers: which sublayers of these layers are Switch layers: 'feed_forward',
        'attention' or 'both' (App. A, Table 10). In self-attention the experts make queries, keys
        and values; cross-attention has none.
      group_size: most tokens that are routed together in the encoder; see `moe.group_shape`.
      decoder_group_size: the same in the decoder, whose rows are shorter; None = group_size.
      train_expert_capacity_factor, eval_expert_capacity_factor: see `moe.expert_capacity` (Eq. 3).
        Where the encoder's experts choose, it has the first one in evaluation, too.
      min_expert_capacity: fewest slots of an expert in a group.
      expert_capacity_multiple: slots are rounded up to a multiple of it where that adds few; see
        `moe.expert_capacity`. 8 is fast on a TPU; 1 does not round.
      encoder_router_type: who chooses in the encoder, in training and evaluation. 'tokens_choose':
        each token its experts, whose slots go to the tokens in their order. 'batch_prioritized':
        the same, and slots go to the tokens of the highest gate first (V-MoE). 'experts_choose':
        each expert its tokens; see `moe.choose_tokens`. The last two look at later tokens, so the
        decoder always has the first.
      jitter_noise: epsilon of the noise on the router's input in training (App. C).
      router_policy: how an expert is chosen in training (App. C, Table 11). 'argmax': the most
        probable one. 'sample': one drawn from the router's softmax, whose probability is the gate.
        'input_dropout': the most probable one after dropout on the router's input, in place of
        jitter. Evaluation and decoding take the argmax without noise.
      router_input_dropout_rate: of 'input_dropout'.
      load_balance: what evens out the load of the experts. 'loss': the load-balancing loss, with
        the coefficient `LossConfig.aux_loss_factor` (Eq. 4). 'bias': a bias for each expert, which
        is added to a token's standardised logits in the choice of experts
        (`moe.tokens_choose`), never in the gate, and which each step moves up or down by
        `OptimizerConfig.router_bias_update_rate`, after DeepSeek-V3. 'none'. The loss is recorded
        in any case.
      router_dtype: in which the router computes, from its input to what its losses take: 'float32',
        whatever activation_dtype is (selective precision, section 2.4), or 'bfloat16' (Table 2).
      dropout_rate: on embeddings, attention, sublayer outputs and dense hidden activations.
      expert_dropout_rate: on the hidden activation inside experts (section 2.4); None =
        dropout_rate.
      scale: s of the truncated-normal initialisation with variance s / fan-in (section 2.4):
        1.0 for T5, 0.1 for Switch.
      relative_position_buckets, relative_position_max_distance: T5's relative position bias.
      norm_epsilon: RMSNorm's.
      activation_dtype: 'bfloat16' or 'float32', of activations; parameters are float32.
      scan_layers: compile one block, and run it in a loop over the blocks. False compiles each
        block by itself: the program is faster, since no activation is copied into a stack and out
        of it (1.4 times for T5-Base on TPU v5p), but takes longer to compile.
      remat_policy: which activations of a block are saved for the backward pass; the others are
        computed again. 'none' = nothing is computed again; 'minimal' = products with weight
        matrices are saved, but not those of experts where a device has several (on a CPU: and each
        has 64 rows or more); 'full' = only the block's input is saved. With both, the tokens that
        go to the experts and come back, and the results of the TPU's attention kernel, are saved
        too, so that no all-to-all and no kernel runs twice.
      gpu_attention: on NVIDIA GPUs 'xla' writes the scores of attention to memory, in float32;
        'cudnn' uses cuDNN's fused attention where there is no dropout, in bfloat16. On other
        devices it changes nothing.
    """

    num_embeddings: Annotated[int, Range(1, 2**24)]
    embed_dim: Size
    mlp_dim: Size
    head_dim: Size
    num_heads: Size
    num_encoder_layers: Layers
    num_decoder_layers: Layers
    activation: Annotated[str, OneOf("relu", "gated-gelu")] = "relu"
    tie_embeddings: bool = True
    num_experts: Annotated[int, Range(0, 2**20)] = 0
    expert_mlp_dim: Annotated[Size, Use.SHAPES] | None = None
    num_selected_experts: Annotated[Count, With("num_experts")] = 1
    second_expert_policy: Annotated[
        str, OneOf("all", "random"), With("num_selected_experts", range(2, 2**31)), Use.TRAINING
    ] = "all"
    second_expert_threshold: Annotated[float, Range(0, 1, excluded_end="least"), Use.TRAINING] = 0.2
    ntlb_rounds: Annotated[Count, With("num_experts"), With("num_selected_experts", (1,))] = 1
    shared_expert_mlp_dim: (
        Annotated[Size, With("num_experts"), With("expert_sublayers", ("feed_forward", "both"))]
        | None
    ) = None
    sparse_step: Annotated[Layers, Use.SHAPES] = 2
    num_encoder_sparse_layers: SparseLayers | None = None
    num_decoder_sparse_layers: SparseLayers | None = None
    encoder_sparse_layout: Layout = "mixed"
    decoder_sparse_layout: Layout = "mixed"
    expert_sublayers: Annotated[str, OneOf(*SUBLAYERS), With("num_experts")] = "feed_forward"
    group_size: Annotated[Count, Use.TUNABLE] = 4096
    decoder_group_size: Annotated[Count, Use.TUNABLE] | None = None
    train_expert_capacity_factor: Annotated[Factor, Use.TRAINING] = 1.25
    eval_expert_capacity_factor: Annotated[Factor, Use.TUNABLE] = 2.0
    min_expert_capacity: Annotated[Count, Use.TUNABLE] = 4
    expert_capacity_multiple: Annotated[Count, Use.TUNABLE] = 8
    encoder_router_type: Annotated[
        str,
        OneOf("tokens_choose", "batch_prioritized", "experts_choose"),
        With("num_experts"),
        With("num_encoder_sparse_layers", (None, *range(1, 10_001))),
    ] = "tokens_choose"
    jitter_noise: Annotated[Rate, Use.TRAINING] = 1e-2
    router_policy: Annotated[str, OneOf(*ROUTER_POLICIES), Use.TRAINING] = "argmax"
    router_input_dropout_rate: Annotated[Rate, Use.TRAINING] = 0.1
    load_balance: Annotated[str, OneOf("loss", "bias", "none"), Use.TRAINING] = "loss"
    router_dtype: Dtype = "float32"
    dropout_rate: Annotated[Rate, Use.TRAINING] = 0.0
    expert_dropout_rate: Annotated[Rate, Use.TRAINING] | None = None
    scale: Annotated[Factor, Use.TRAINING] = 1.0
    relative_position_buckets: Annotated[int, Range(4, 2**20)] = 32
    relative_position_max_distance: Count = 128
    norm_epsilon: Rate = 1e-6
    activation_dtype: Dtype = "bfloat16"
    scan_layers: Annotated[bool, Use.TRAINING] = True
    remat_policy: Annotated[str, OneOf(*REMAT_POLICIES), Use.TRAINING] = "none"
    gpu_attention: Annotated[str, OneOf("xla", "cudnn"), Use.TRAINING] = "xla"

    def __post_init__(self) -> None:
        check_fields(self)
        for name, value, by, other in _APART:
            if (getattr(self, name), getattr(self, by)) == (value, other):
                raise FieldError(name, f"= {value!r} does not go with {by.upper()} = {other!r}")
        if self.router_policy == "input_dropout" and self.jitter_noise > 0:  # it takes its place
            problem = f"= {self.jitter_noise} does not go with ROUTER_POLICY = 'input_dropout'"
            raise FieldError("jitter_noise", problem)
        for name in ("num_selected_experts", "ntlb_rounds"):
            number = getattr(self, name)
            if number > max(1, self.num_experts):
                raise FieldError(name, f"= {number} is more than NUM_EXPERTS = {self.num_experts}")
        exact = self.relative_position_buckets // 2  # distances with a bucket of their own
        if self.relative_position_max_distance <= exact:
            raise FieldError(
                "relative_position_max_distance",
                f"= {self.relative_position_max_distance}: it must be above {exact}, half of "
                "relative_position_buckets",
            )
        if self.num_experts:
            for name in ("encoder", "decoder"):
                check_sparse_layers(name, *self._layers(name), self.sparse_step)
            if not any(stack.sparse_layers for stack in self.stacks):
                raise FieldError(
                    "num_experts",
                    f"= {self.num_experts}, and NUM_ENCODER_SPARSE_LAYERS and "
                    "NUM_DECODER_SPARSE_LAYERS leave no layer for them",
                )

    @property
    def identity(self) -> dict[str, Any]:
        """What makes it this model: fields without a `Use`, and its experts' places and sizes."""
        return {
            **{name.upper(): getattr(self, name) for name, use in uses(type(self)) if use is None},
            "EXPERT_MLP_DIM": self.expert_hidden_dim if self.num_experts else None,
            "layers with experts": {s.name: list(s.sparse_layers) for s in self.stacks},
        }

    @property
    def expert_hidden_dim(self) -> int:
        """F of one expert."""
        return self.expert_mlp_dim or self.mlp_dim

    @property
    def expert_dropout(self) -> float:
        """The rate of dropout inside experts."""
        rate = self.expert_dropout_rate
        return self.dropout_rate if rate is None else rate

    @property
    def router_input_dropout(self) -> float:
        """The rate of dropout on the router's input under the policy."""
        is_used = self.router_policy == "input_dropout"
        return self.router_input_dropout_rate if is_used else 0.0

    @property
    def sublayers_with_experts(self) -> tuple[str, ...]:
        """Those of a layer with experts, in the order in which tokens pass them."""
        return SUBLAYERS[self.expert_sublayers] if self.num_experts else ()

    @functools.cached_property
    def stacks(self) -> tuple[StackConfig, ...]:
        """The stacks in the order in which they compute; the last one makes the logits."""
        encoder = self._stack(
            "encoder",
            feature="inputs",
            attends_to=None,
            causal=False,
            router_type=self.encoder_router_type,
            group_size=self.group_size,
            group_size_field="group_size",
        )
        decoder = self._stack(
            "decoder",
            feature="targets",
            attends_to=encoder.name,
            causal=True,
            router_type="tokens_choose",
            group_size=self.decoder_group_size or self.group_size,
            group_size_field="decoder_group_size",
        )
        return encoder, decoder

    def stack(self, name: str) -> StackConfig:
        """The stack of this name; KeyError where there is none."""
        return {stack.name: stack for stack in self.stacks}[name]

    @property
    def encoded_stack(self) -> StackConfig:
        """The stack that the last one attends to: decoding runs it once, for all tokens."""
        attended = self.stacks[-1].attends_to
        assert attended is not None
        return self.stack(attended)

    def _stack(self, name: str, *, router_type: str, **fields: Any) -> StackConfig:
        """A stack whose number of layers and layout have its name in theirs."""
        num_layers, layout, number = self._layers(name)
        sparse: list[int] = []
        if self.num_experts:
            number = num_layers // self.sparse_step if number is None else number
            sparse = sparse_layers(layout, num_layers, number)
        training, evaluation = self.train_expert_capacity_factor, self.eval_expert_capacity_factor
        return StackConfig(
            name=name,
            num_layers=num_layers,
            sparse_layers=tuple(sparse),
            sublayers_with_experts=self.sublayers_with_experts,
            router_type=router_type,
            train_expert_capacity_factor=training,
            eval_expert_capacity_factor=training if router_type == "experts_choose" else evaluation,
            **fields,
        )

    def _layers(self, stack: str) -> tuple[int, str, int | None]:
        """N of a stack, the layout of its layers with experts, and their number if it is set."""
        return (
            getattr(self, f"num_{stack}_layers"),
            getattr(self, f"{stack}_sparse_layout"),
            getattr(self, f"num_{stack}_sparse_layers"),
        )


def router_names(layers: Sequence[int], sublayers: Sequence[str]) -> list[str]:
    """Names of a stack's routers: 'layer 1', or 'layer 1 attention' where attention has some."""
    if "attention" not in sublayers:
        return [f"layer {layer}" for layer in layers]
    return [f"layer {i} {sublayer}" for i, sublayer in zip(layers, sublayers, strict=True)]
