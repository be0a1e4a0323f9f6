"""A model: its parts, the rules between them, and the stacks that follow from them."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Annotated, Any

from switch_jax.config.attention import AttentionConfig
from switch_jax.config.execution import ExecutionConfig
from switch_jax.config.experts import ExpertsConfig
from switch_jax.config.routing import RoutingConfig
from switch_jax.config.sparse_layers import LAYOUTS, check_sparse_layers, sparse_layers
from switch_jax.config.stack import StackConfig
from switch_jax.config.transformer import TransformerConfig
from switch_jax.utils.errors import FieldError
from switch_jax.utils.fields import Count, OneOf, Range, Use, With, uses

Layers = Annotated[int, Range(1, 10_000)]
SparseLayers = Annotated[int, Range(0, 10_000), Use.SHAPES]
Layout = Annotated[str, OneOf(*LAYOUTS), Use.SHAPES]


# Fields come in the order of the bases from the last to the first.
@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig(
    ExecutionConfig, RoutingConfig, ExpertsConfig, AttentionConfig, TransformerConfig
):
    """A T5 encoder-decoder, or a decoder alone, dense or sparse (section 2; sizes in Table 9).

    It also has the fields of its parts, `TransformerConfig`, `AttentionConfig`, `ExpertsConfig`,
    `RoutingConfig` and `ExecutionConfig`, as its own: `ModelConfig(embed_dim=64, num_experts=8)` in
    a program, `ModelConfig.num_experts = 8` in a gin file.

    Attributes:
      num_encoder_layers, num_decoder_layers: layers of the stack. Without layers of an encoder it
        is a language model: the decoder alone reads 'targets' and, before them in the same row, the
        task's 'inputs', which have no loss.
      sparse_step: every so many layers one has experts: 2 = layers 1, 3, 5, ... counted from 0
        ("expert freq 1/2"), 1 = all.
      num_encoder_sparse_layers, num_decoder_sparse_layers: how many layers of the stack have
        experts, from 0 on; None = one in `sparse_step`.
      encoder_sparse_layout, decoder_sparse_layout: where they are: 'mixed' spreads them evenly;
        'bottom', 'middle', 'top'. See `sparse_layers.sparse_layers`.
      group_size: at most so many tokens of the encoder are routed together; see `moe.group_shape`.
      decoder_group_size: the same in the decoder, whose rows are shorter; None = group_size, which
        is also what to set for a decoder alone.
      encoder_router_type: who chooses in the encoder, in training and evaluation. 'tokens_choose':
        each token its experts, whose slots go to the tokens in their order. 'batch_prioritized':
        the same, and slots go to the tokens of the highest gate first (V-MoE). 'experts_choose':
        each expert its tokens; see `moe.choose_tokens`. The last two look at later tokens, so the
        decoder always has the first.
    """

    num_encoder_layers: Annotated[int, Range(0, 10_000)]
    num_decoder_layers: Layers
    sparse_step: Annotated[Layers, Use.SHAPES] = 2
    num_encoder_sparse_layers: Annotated[SparseLayers, With("num_encoder_layers")] | None = None
    num_decoder_sparse_layers: SparseLayers | None = None
    encoder_sparse_layout: Annotated[Layout, With("num_encoder_layers")] = "mixed"
    decoder_sparse_layout: Layout = "mixed"
    group_size: Annotated[Count, Use.TUNABLE] = 4096
    decoder_group_size: Annotated[Count, Use.TUNABLE] | None = None
    encoder_router_type: Annotated[
        str,
        OneOf("tokens_choose", "batch_prioritized", "experts_choose"),
        With("num_experts"),
        With("num_encoder_layers"),
        With("num_encoder_sparse_layers", (None, *range(1, 10_001))),
        # Sampling and the bias are for tokens that choose their experts.
        With("router_policy", ("argmax", "input_dropout"), of="experts_choose"),
        With("load_balance", ("loss", "none"), of="experts_choose"),
    ] = "tokens_choose"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_selected_experts", "ntlb_rounds"):
            number = getattr(self, name)
            if number > max(1, self.num_experts):
                raise FieldError(name, f"= {number} is more than NUM_EXPERTS = {self.num_experts}")
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
        grouped = self.num_heads // self.key_value_heads
        return {
            **{name.upper(): getattr(self, name) for name, use in uses(type(self)) if use is None},
            "EXPERT_MLP_DIM": self.expert_hidden_dim if self.num_experts else None,
            "NUM_KEY_VALUE_HEADS": None if grouped == 1 else self.num_key_value_heads,
            "NORMALIZE_GATES": self.normalize_gates or self.num_selected_experts == 1,
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

    @functools.cached_property
    def stacks(self) -> tuple[StackConfig, ...]:
        """The stacks in the order in which they compute; the last one makes the logits."""
        stacks: list[StackConfig] = []
        if self.num_encoder_layers:
            encoder = self._stack(
                "encoder",
                features=("inputs",),
                attends_to=None,
                causal=False,
                router_type=self.encoder_router_type,
                group_size=self.group_size,
                group_size_field="group_size",
            )
            stacks.append(encoder)
        own_size = self.decoder_group_size
        decoder = self._stack(
            "decoder",
            features=("targets",) if stacks else ("inputs", "targets"),
            attends_to=stacks[0].name if stacks else None,
            causal=True,
            router_type="tokens_choose",
            group_size=own_size or self.group_size,
            group_size_field="decoder_group_size" if own_size or stacks else "group_size",
        )
        return *stacks, decoder

    def stack(self, name: str) -> StackConfig:
        """The stack of this name; KeyError where there is none."""
        return {stack.name: stack for stack in self.stacks}[name]

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
