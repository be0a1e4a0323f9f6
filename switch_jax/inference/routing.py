"""Which experts the tokens of a text go to."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from switch_jax.config import ModelConfig
from switch_jax.config.model import router_names
from switch_jax.data.catalogue.vocabularies import piece
from switch_jax.data.packing import Example, empty_batch, write_row
from switch_jax.inference.input_records import check_text, encode
from switch_jax.inference.interactive import InteractiveModel
from switch_jax.model import bind, model_inputs
from switch_jax.partitioning.mesh import replicated
from switch_jax.partitioning.placing import put_batch
from switch_jax.utils.errors import UserError
from switch_jax.utils.tensorflow_setup import seqio
from switch_jax.utils.units import aligned


@dataclasses.dataclass(frozen=True)
class Routing:
    """The experts of the tokens of one stack; print it to read it.

        routing = switch_jax.route(model, "some text")["encoder"]
        collections.Counter(routing.experts[0, :, 0])  # tokens of each expert of the first router

    L tokens, N routers, k experts a token (1 in a Switch Transformer).

    Attributes:
      tokens: [L] texts, as SentencePiece has them: "▁" is the space before a word.
      layers: [N] int, the layer of each router in its stack, counted from 0.
      sublayers: [N] 'feed_forward' or 'attention', which of its sublayers has these experts.
      experts: [N, L, k] int, the best expert first. Where experts choose, k is E: those that take
        the token, and the number E behind the last one.
      gates: [N, L, k] float, what the experts' outputs are multiplied by (Eq. 2).
      cut: how many tokens of the text are left out, as the config's length is reached: its last
        ones or, where inputs have no length of their own, its first ones.
    """

    tokens: list[str]
    layers: list[int]
    sublayers: list[str]
    experts: np.ndarray
    gates: np.ndarray
    cut: int

    @property
    def routers(self) -> dict[str, list[list[tuple[int, float]]]]:
        """By the name of a router: for each token its experts with their gates, those above 0."""
        names = router_names(self.layers, self.sublayers)
        return {
            name: [
                [(e, g) for e, g in zip(*of_token, strict=True) if g > 0]
                for of_token in zip(experts.tolist(), gates.tolist(), strict=True)
            ]
            for name, experts, gates in zip(names, self.experts, self.gates, strict=True)
        }

    def __str__(self) -> str:
        """A line for each token, with its experts and their gates; a last one on tokens cut off."""
        routers = self.routers
        rows = [["token", *routers]]
        for token, *found in zip(self.tokens, *routers.values(), strict=True):
            rows.append([token, *(", ".join(f"{e} ({g:.2f})" for e, g in each) for each in found)])
        lines = aligned(rows)
        if self.cut:
            lines.append(
                f"the text is longer by {self.cut} tokens, which TASK_FEATURE_LENGTHS cuts off"
            )
        return "\n".join(lines)


def route(model: InteractiveModel, text: str, target: str | None = None) -> dict[str, Routing]:
    """The expert and the gate of each token by each router.

        routing = switch_jax.route(model, "some text")
        print(routing["encoder"])

    They are those of `model.score([text], [target])`. A token whose expert has no slot left for it
    has an expert here, too.

    Args:
      model: what `switch_jax.load` returned.
      text: the input; cut off at the config's length.
      target: the decoder's text; None: what reads the input is looked at alone.

    Returns:
      A `Routing` for each stack with experts: 'encoder' and, with a target, 'decoder', whose tokens
      are those that it reads: a first one that begins the sequence, and the target without its
      last one. A model without an encoder has 'decoder' alone, which reads `text`, too: all of it
      where there is no target.

    Raises:
      UserError: the model is dense, or `text` or `target` is no text.
    """
    if not model.config.model.num_experts:
        raise UserError("the model is dense: it has no experts to route to")
    check_text("text", text)
    if target is not None:
        check_text("target", target)
    record = {"inputs": text} if target is None else {"inputs": text, "targets": target}
    _, example, cut, _ = encode(record, model.text_features, max_new_tokens=1)
    if target is not None:
        return route_ids(model, example, cut)
    # A place for the next token, at which the last one of the text is read.
    found = route_ids(model, {**example, "targets": np.zeros(1, np.int32)}, cut)
    readers = [stack.name for stack in model.config.model.stacks if "inputs" in stack.features]
    return {name: routing for name, routing in found.items() if name in readers}


def route_ids(
    model: InteractiveModel, example: Example, cut: Mapping[str, int]
) -> dict[str, Routing]:
    """`route` for an example's ids, of 'inputs' and 'targets'; `cut`: ids left out, by feature."""
    config, stacks = model.config, model.config.model.stacks
    batch = empty_batch(stacks, config.run.batch_size, config.data.task_feature_lengths)
    write_row(stacks, batch, 0, [example])
    with jax.set_mesh(model.mesh):
        choose = _expert_chooser(config.model, model.mesh)
        chosen = jax.device_get(choose(model.parameters, put_batch(batch, model.mesh)))
    found = {}
    for stack in stacks:
        if stack.name not in chosen:
            continue
        tokens = [
            word
            for name in stack.features
            for word in _pieces(model.text_features[name].vocabulary, example[name])
        ]
        if stack is stacks[-1]:  # shifted right, see `write_row`
            tokens = ["<start>", *tokens][:-1]
        length = len(tokens)
        experts, gates = (x[:, 0].swapaxes(1, 2)[:, :length] for x in chosen[stack.name])
        layers, sublayers = map(list, zip(*stack.routers, strict=True))
        left_out = sum(cut.get(name, 0) for name in stack.features)
        found[stack.name] = Routing(tokens, layers, sublayers, experts, gates, left_out)
    return found


def _pieces(vocabulary: seqio.Vocabulary, ids: np.ndarray) -> list[str]:
    return ["</s>" if i == vocabulary.eos_id else piece(vocabulary, i) for i in ids.tolist()]


@functools.lru_cache(maxsize=8)
def _expert_chooser(config: ModelConfig, mesh: Mesh) -> Callable[[Any, dict[str, jax.Array]], Any]:
    """Makes a function of parameters and batch to `Output.choices`; once compiled, it is kept."""

    def choose(parameters: Any, batch: dict[str, jax.Array]) -> Any:
        return bind(config, parameters)(*model_inputs(config, batch), with_choices=True).choices

    return jax.jit(choose, out_shardings=replicated(mesh))
