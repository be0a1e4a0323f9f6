"""Our model against Hugging Face's Switch Transformer, number by number (oracle/README.md)."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from switch_jax.config import ModelConfig
from switch_jax.model import bind
from switch_jax.model.attention import Encoded
from switch_jax.model.layer_context import LayerContext
from switch_jax.moe import Tokens, assign, load_balance_loss
from tests.trainer.helpers import by_stack

ORACLE = Path(__file__).parent / "oracle"
SIZES = json.loads((ORACLE / "nodrop_tied.json").read_text())["config"]
RECORDED = dict(np.load(ORACLE / "nodrop_tied.npz"))
WEIGHTS = load_file(ORACLE / "nodrop_tied.weights.safetensors")
STACKS = ("encoder", "decoder")
EXPERTS, STEP = SIZES["num_experts"], 2

CONFIG = ModelConfig(
    num_embeddings=SIZES["vocab_size"],
    embed_dim=SIZES["d_model"],
    mlp_dim=SIZES["d_ff"],
    head_dim=SIZES["d_kv"],
    num_heads=SIZES["num_heads"],
    num_encoder_layers=SIZES["num_layers"],
    num_decoder_layers=SIZES["num_decoder_layers"],
    num_experts=EXPERTS,
    sparse_step=STEP,
    group_size=RECORDED["input_ids"].shape[1],  # a group is a row, in the decoder too
    eval_expert_capacity_factor=EXPERTS,  # room for all tokens in each expert
    relative_position_buckets=SIZES["relative_attention_num_buckets"],
    relative_position_max_distance=SIZES["relative_attention_max_distance"],
    activation_dtype="float32",
)


def feed_forward_name(stack: str, block: int) -> str:
    """Behind self-attention, and in the decoder behind cross-attention."""
    return f"{stack}.block.{block}.layer.{STACKS.index(stack) + 1}"


def ours(theirs: dict) -> dict:
    """Hugging Face's names -> our nested dict: kernels transposed, experts and blocks stacked."""

    def kernel(name):
        return theirs[f"{name}.weight"].T

    def scale(name):
        return {"scale": theirs[f"{name}.weight"]}

    def attention(name):
        names = {"query": "q", "key": "k", "value": "v", "out": "o"}
        return {our: kernel(f"{name}.{their}") for our, their in names.items()}

    def feed_forward(name, sparse):
        if not sparse:
            return {"wi_0": kernel(f"{name}.wi"), "wo": kernel(f"{name}.wo")}
        experts = [f"{name}.experts.expert_{e}" for e in range(EXPERTS)]
        return {
            "router": kernel(f"{name}.router.classifier"),
            "wi_0": np.stack([kernel(f"{expert}.wi") for expert in experts]),
            "wo": np.stack([kernel(f"{expert}.wo") for expert in experts]),
        }

    def layer(stack, number):
        block = f"{stack}.block.{number}"
        ffn = feed_forward_name(stack, number)
        parts = {
            "self_attention_norm": scale(f"{block}.layer.0.layer_norm"),
            "self_attention": attention(f"{block}.layer.0.SelfAttention"),
            "feed_forward_norm": scale(f"{ffn}.layer_norm"),
            "feed_forward": feed_forward(f"{ffn}.mlp", sparse=number % STEP == STEP - 1),
        }
        if stack == "decoder":
            parts["cross_attention_norm"] = scale(f"{block}.layer.1.layer_norm")
            parts["cross_attention"] = attention(f"{block}.layer.1.EncDecAttention")
        return parts

    def whole(stack, layers):
        blocks = [
            {f"layer_{i}": layer(stack, first + i) for i in range(STEP)}
            for first in range(0, layers, STEP)
        ]
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        return {
            "relative_position_bias": {"embedding": theirs[bias]},
            "blocks": jax.tree.map(lambda *leaves: np.stack(leaves), *blocks),
            "final_norm": scale(f"{stack}.final_layer_norm"),
        }

    return {
        "token_embedding": {"embedding": theirs["shared.weight"]},
        "encoder": whole("encoder", SIZES["num_layers"]),
        "decoder": whole("decoder", SIZES["num_decoder_layers"]),
    }


PARAMETERS = ours(WEIGHTS)
TOKENS = RECORDED["input_ids"], RECORDED["decoder_input_ids"]
SEGMENTS = RECORDED["attention_mask"], np.ones_like(RECORDED["labels"])


class Recorder:
    """Stands before a feed-forward layer and notes what went in and what came out."""

    def __init__(self, layer, notes: list) -> None:
        self.layer, self.notes = layer, notes

    def __call__(self, x, tokens, context):
        y, router = self.layer(x, tokens, context)
        self.notes.append((x, y))
        return y, router


def run_layers(stack, x, tokens, encoded=None):
    """A stack layer by layer, without the scan.

    Returns:
      The hidden states as Hugging Face lists them, and each feed-forward layer's input and output.
    """
    context = LayerContext(position_bias=stack.relative_position_bias(x.shape[1]))
    graph, state = nnx.split(stack.blocks)
    hidden, feed_forwards = [x], []
    for number in range(jax.tree.leaves(state)[0].shape[0]):
        block = nnx.merge(graph, jax.tree.map(lambda p, n=number: p[n], state))
        for i in range(block.num_layers):
            layer = getattr(block, f"layer_{i}")
            layer.feed_forward = Recorder(layer.feed_forward, feed_forwards)
            x, _ = layer(x, tokens, context, encoded)
            hidden.append(x)
    hidden[-1] = stack.final_norm(x)
    return hidden, feed_forwards


def forward(parameters):
    """Everything inside our model, by stack: hidden states, feed-forward layers, router logits."""
    model = bind(CONFIG, parameters)
    embedded = model.token_embedding(*TOKENS)
    inputs, targets = map(Tokens, TOKENS, SEGMENTS)
    encoder = run_layers(model.encoder, embedded[0], inputs)
    encoded = Encoded(encoder[0][-1], inputs.segments)
    decoder = run_layers(model.decoder, embedded[1], targets, encoded)
    result = {}
    for name, (hidden, feed_forwards) in zip(STACKS, (encoder, decoder), strict=True):
        routers = parameters[name]["blocks"][f"layer_{STEP - 1}"]["feed_forward"]["router"]
        inputs = [x for x, _ in feed_forwards[STEP - 1 :: STEP]]
        logits = [x @ router for x, router in zip(inputs, routers, strict=True)]
        result[name] = {"hidden": hidden, "feed_forward": feed_forwards, "router_logits": logits}
    return result


def auxiliary_loss(router_logits):
    """Hugging Face's: the layers of a stack are one long row to it."""
    logits = jnp.concatenate(router_logits, axis=1)
    assignment = assign(logits, logits.shape[1])
    return load_balance_loss(assignment.router.importance, assignment.load)


def total_loss(parameters):
    """The model's own logits and z-losses; only aux needs the single layers."""
    output, layers = (
        bind(CONFIG, parameters)(by_stack(*TOKENS), by_stack(*SEGMENTS)),
        forward(parameters),
    )
    log_probs = jax.nn.log_softmax(output.logits)
    parts = {
        "ce_loss": -jnp.take_along_axis(log_probs, RECORDED["labels"][..., None], -1).mean(),
        "encoder_z_loss": output.routers["encoder"].z_loss.mean(),
        "decoder_z_loss": output.routers["decoder"].z_loss.mean(),
        "encoder_aux_loss": auxiliary_loss(layers["encoder"]["router_logits"]),
        "decoder_aux_loss": auxiliary_loss(layers["decoder"]["router_logits"]),
    }
    value = parts["ce_loss"]
    for name in STACKS:
        value += 0.01 * parts[f"{name}_aux_loss"] + 0.001 * parts[f"{name}_z_loss"]
    return value, {"parts": parts, "output": output, "layers": layers}


@pytest.fixture(scope="module")
def found():
    """The loss and its gradients, and what the loss came from."""
    run = jax.jit(jax.value_and_grad(total_loss, has_aux=True))
    (loss, rest), gradients = jax.device_get(run(PARAMETERS))
    return {"loss": loss, "gradients": gradients, **rest}


@pytest.mark.parametrize("stack", STACKS)
def test_hidden_states_and_feed_forward_layers(found, stack):
    layers = found["layers"][stack]
    for number, hidden in enumerate(layers["hidden"]):
        np.testing.assert_allclose(
            hidden, RECORDED[f"{stack}_hidden_states.{number}"], atol=1e-4, err_msg=str(number)
        )
    assert len(layers["feed_forward"]) == SIZES["num_layers"]
    for number, (x, y) in enumerate(layers["feed_forward"]):
        name = f"{feed_forward_name(stack, number)}.mlp"
        np.testing.assert_allclose(x, RECORDED[f"{name}.in"], atol=1e-4, err_msg=name)
        np.testing.assert_allclose(y, RECORDED[f"{name}.out"], atol=1e-4, err_msg=name)


@pytest.mark.parametrize("stack", STACKS)
def test_router_logits_experts_and_gates(found, stack):
    for index, logits in enumerate(found["layers"][stack]["router_logits"]):
        np.testing.assert_allclose(logits, RECORDED[f"{stack}_router_logits.{index}"], atol=1e-4)
        name = f"{feed_forward_name(stack, index * STEP + STEP - 1)}.mlp.router"
        assignment = jax.jit(assign, static_argnums=1)(logits, logits.shape[1])
        np.testing.assert_array_equal(
            assignment.expert_index[:, 0], RECORDED[f"{name}.dispatch"].argmax(-1)
        )
        gate = RECORDED[f"{name}.gate"][..., 0]
        np.testing.assert_allclose(assignment.gate[:, 0], gate, atol=1e-4)


def test_logits_of_the_whole_model(found):
    output = found["output"]
    np.testing.assert_allclose(output.logits, RECORDED["logits"], atol=1e-4)
    for statistics in output.routers.values():
        np.testing.assert_array_equal(statistics.dropped, 0)


def test_losses_and_every_gradient(found):
    np.testing.assert_allclose(found["loss"], RECORDED["loss"], atol=1e-4)
    for name, part in found["parts"].items():
        np.testing.assert_allclose(part, RECORDED[name], atol=1e-4, err_msg=name)

    grads = {name[5:]: array for name, array in RECORDED.items() if name.startswith("grad/")}
    expected = jax.tree_util.tree_leaves_with_path(ours(grads))
    gradients = jax.tree.leaves(found["gradients"])
    for (path, theirs), gradient in zip(expected, gradients, strict=True):
        name, largest = jax.tree_util.keystr(path), np.abs(theirs).max()
        assert largest > 1e-3, name
        np.testing.assert_allclose(gradient, theirs, atol=1e-4 * largest, rtol=0, err_msg=name)
