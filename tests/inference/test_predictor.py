"""Predictions and scores of a tiny model against argmax and log-softmax in numpy, one by one."""

import functools

import jax
import numpy as np
import pytest

from switch_jax.config import Config, DataConfig, MeshConfig, RunConfig
from switch_jax.inference import DecodingConfig, make_decode
from switch_jax.inference.predictor import Predictor
from switch_jax.model import bind, cast_and_gather_once
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.train_step.state import abstract_model
from tests.inference.parameters import parameters
from tests.trainer.helpers import by_stack, tiny_model

M, L, EOS = 6, 5, 1
# Enough capacity for all tokens, in groups of one row.
SWITCH = tiny_model(num_embeddings=8, group_size=M, eval_expert_capacity_factor=4.0)
# Inputs and targets of different lengths; the last targets fill their row.
INPUTS = [[3, 1], [5, 2, 7, 4, 6, 1], [2, 2, 1], [6, 5, 4, 1], [7, 1]]
TARGETS = [[4, 1], [1], [2, 6, 1], [], [3, 3, 5, 2, 1]]
EXAMPLES = [
    {"inputs": np.array(i, np.int32), "targets": np.array(t, np.int32)}
    for i, t in zip(INPUTS, TARGETS, strict=True)
]


@functools.cache
def forward(model):
    """Jitted: logits [1, L, V] of one example, teacher-forced."""

    def logits(parameters, tokens, words):
        segments = (tokens > 0).astype(int)
        ones = np.ones((1, L), int)
        return bind(model, parameters)(by_stack(tokens, words), by_stack(segments, ones)).logits

    return jax.jit(logits)


def log_probs(model, inputs, words):
    """[L, V], of the word at each position after the words before it."""
    tokens, before = np.zeros((1, M), int), np.zeros((1, L), int)
    tokens[0, : len(inputs)] = inputs
    before[0, 1 : 1 + len(words)] = words[: L - 1]
    logits = np.array(forward(model)(parameters(model), tokens, before))[0].astype(float)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def greedy(model, inputs):
    """The words that follow each other with the greatest probability, and its logarithm."""
    words, score = [], 0.0
    while len(words) < L and EOS not in words:
        of_next = log_probs(model, inputs, words)[len(words)]
        words.append(int(of_next.argmax()))
        score += of_next.max()
    return words, score


def score(model, inputs, targets):
    of_words = log_probs(model, inputs, targets)
    return sum(of_words[i, word] for i, word in enumerate(targets))


def make_predictor(model, batch_size, mesh_shape=(1, 1, 1), **decoding):
    devices = jax.devices()[: int(np.prod(mesh_shape))]
    mesh = make_mesh(MeshConfig(*mesh_shape), devices)
    config = Config(
        RunConfig("none", train_steps=1, batch_size=batch_size),
        model,
        DataConfig("none", {"inputs": M, "targets": L}),
        MeshConfig(*mesh_shape),
    )
    return Predictor(config, mesh, DecodingConfig(L, **decoding)), mesh


@pytest.fixture(scope="module", params=[(1, 1, 1), (2, 2, 2)], ids=str)
def of_experts(request):
    """A predictor of a model with experts, of four examples a batch: the last batch has one."""
    return make_predictor(SWITCH, 4, request.param)


def test_predictions_are_the_most_probable_words_in_the_order_of_the_examples(of_experts):
    predictor, mesh = of_experts
    with jax.set_mesh(mesh):
        predictions = list(predictor.predict(parameters(SWITCH), EXAMPLES))
    expected = [greedy(SWITCH, inputs) for inputs in INPUTS]
    assert len({tuple(words) for words, _ in expected}) > 2, "examples should differ"
    assert {len(words) for words, _ in expected} > {L}, "some should end with EOS"
    # All tokens after the first EOS are EOS.
    padded = [[*words, *[EOS] * (L - len(words))] for words, _ in expected]
    assert [prediction.tokens.tolist() for prediction in predictions] == padded
    scores = [prediction.score for prediction in predictions]
    np.testing.assert_allclose(scores, [score for _, score in expected], atol=1e-4)


def test_split_weights_are_gathered_once_for_all_tokens():
    """Before the loop over tokens; and the predictions are those of whole weights."""
    layout = MeshConfig(4, 2, 1, fully_sharded_weights=True)
    mesh = make_mesh(layout)
    split = abstract_model(SWITCH, layout, mesh)
    with jax.set_mesh(mesh):
        gathered = jax.jit(functools.partial(cast_and_gather_once, SWITCH)).lower(split).compile()
        placed = jax.tree.map(lambda x, s: jax.device_put(x, s.sharding), parameters(SWITCH), split)
        predictor, _ = make_predictor(SWITCH, 8, (4, 2, 1))
        predictions = list(predictor.predict(placed, EXAMPLES))
    axes = [
        {axis for axis in jax.tree.leaves(tuple(s.sharding.spec)) if axis}
        for s in jax.tree.leaves(split)
    ]
    assert any("data" in of_one for of_one in axes)
    for sharding in jax.tree.leaves(gathered.output_shardings):
        assert "data" not in jax.tree.leaves(tuple(sharding.spec))
    expected = [greedy(SWITCH, inputs)[0] for inputs in INPUTS]
    for prediction, words in zip(predictions, expected, strict=True):
        assert prediction.tokens.tolist()[: len(words)] == words


def test_scores_are_sums_of_log_probabilities_in_the_order_of_the_examples(of_experts):
    predictor, mesh = of_experts
    with jax.set_mesh(mesh):
        scores = list(predictor.score(parameters(SWITCH), EXAMPLES))
    expected = [score(SWITCH, i, t) for i, t in zip(INPUTS, TARGETS, strict=True)]
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert scores[3] == 0.0, "there are no targets"


def test_scores_of_all_beams_are_those_of_the_model():
    """Each beam keeps its own cache, though they change places."""
    tokens = np.array([[*words, *[0] * (M - len(words))] for words in INPUTS])
    decode = jax.jit(make_decode(SWITCH, DecodingConfig(L, num_beams=3, length_penalty=0.6)))
    arguments = {"encoder": tokens}, {"encoder": (tokens > 0).astype(int)}, np.arange(len(INPUTS))
    decoded = jax.device_get(decode(parameters(SWITCH), *arguments))
    for inputs, beams, scores in zip(INPUTS, decoded.tokens, decoded.scores, strict=True):
        for words, found in zip(beams.tolist(), scores, strict=True):
            words = words[: words.index(EOS) + 1] if EOS in words else words
            expected = score(SWITCH, inputs, words) / ((5 + len(words)) / 6) ** 0.6
            np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_examples_are_cut_off_at_the_lengths_of_the_config(of_experts):
    predictor, mesh = of_experts
    long = {"inputs": np.arange(10, dtype=np.int32) % 8, "targets": np.full(9, 2, np.int32)}
    short = {"inputs": long["inputs"][:M], "targets": long["targets"][:L]}
    with jax.set_mesh(mesh):
        of_long, of_short = predictor.score(parameters(SWITCH), [long, short])
        assert of_long == of_short
        of_long, of_short = predictor.predict(parameters(SWITCH), [long, short])
        assert of_long.tokens.tolist() == of_short.tokens.tolist()


def test_samples_depend_on_the_index_among_all_examples():
    predictor, mesh = make_predictor(SWITCH, batch_size=4, temperature=1.0, seed=3)

    def sample(examples, first_id=0):
        with jax.set_mesh(mesh):
            predictions = list(predictor.predict(parameters(SWITCH), examples, first_id))
        return [prediction.tokens.tolist() for prediction in predictions]

    together = sample(EXAMPLES)
    assert sample(EXAMPLES[:3]) + sample(EXAMPLES[3:], first_id=3) == together
    assert sample([EXAMPLES[0]] * 5) != [together[0]] * 5, "the same inputs, but other indices"
