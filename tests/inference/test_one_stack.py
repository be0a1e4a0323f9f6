"""Prompts of a decoder alone: what follows them, against the model without a cache, one by one."""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest

from switch_jax.config import Config, DataConfig, MeshConfig, RunConfig
from switch_jax.inference import DecodingConfig
from switch_jax.inference.predictor import Predictor
from switch_jax.model import bind
from switch_jax.partitioning.mesh import make_mesh
from tests.inference.parameters import parameters
from tests.trainer.helpers import tiny_model

P, L, EOS = 6, 5, 1
W = P + L
# A decoding step and a prompt drop no token, whatever the capacity factor of evaluation.
SWITCH = tiny_model(
    num_encoder_layers=0, num_embeddings=8, group_size=W, eval_expert_capacity_factor=0.25
)
TODAY = dataclasses.replace(
    SWITCH, positions="rotary", num_heads=4, num_key_value_heads=2, qk_norm=True,
    activation="swiglu", num_selected_experts=2, num_decoder_layers=4, scan_layers=True,
)  # fmt: skip
ATTENTION = dataclasses.replace(SWITCH, expert_sublayers="both")
# An empty one, one that fills the prompts' width, and others.
PROMPTS = [[3, 1], [5, 2, 7, 4, 6, 3], [], [2, 2, 3], [6, 5, 4, 7]]
TARGETS = [[4, 1], [1], [2, 6, 1], [], [3, 3, 5, 2, 1]]
EXAMPLES = [
    {"inputs": np.array(i, np.int32), "targets": np.array(t, np.int32)}
    for i, t in zip(PROMPTS, TARGETS, strict=True)
]
LENGTHS = {"inputs": P, "targets": L}


@functools.cache
def forward(model):
    """Jitted: logits [1, W, V] of one row, whole and without a cache, with room in all experts."""
    model = dataclasses.replace(model, eval_expert_capacity_factor=4.0)

    def logits(parameters, tokens, segments):
        return bind(model, parameters)({"decoder": tokens}, {"decoder": segments}).logits

    return jax.jit(logits)


def log_probs(model, prompt, words):
    """[n + 1, V], of each of n words after a prompt, and of the next one."""
    read = [0, *prompt, *words][:W]
    tokens, segments = np.zeros((1, W), int), np.zeros((1, W), int)
    tokens[0, : len(read)], segments[0, : len(read)] = read, 1
    logits = np.array(forward(model)(parameters(model), tokens, segments))[0].astype(float)
    logits = logits[len(prompt) : len(read)]
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def score(model, prompt, words):
    of_words = log_probs(model, prompt, words)
    return sum(of_words[i, word] for i, word in enumerate(words))


def greedy(model, prompt):
    words = []
    while len(words) < L and EOS not in words:
        words.append(int(log_probs(model, prompt, words)[len(words)].argmax()))
    return words


def ended(words):
    words = list(map(int, words))
    return words[: words.index(EOS) + 1] if EOS in words else words


def predictor(model, mesh=(1, 1, 1), batch_size=8, lengths=LENGTHS, length=L, **decoding):
    data, layout = DataConfig("none", lengths), MeshConfig(*mesh)
    config = Config(RunConfig("run", 1, batch_size), model, data, layout)
    mesh = make_mesh(layout)
    return Predictor(config, mesh, DecodingConfig(length, **decoding)), mesh


def predicted(model, examples=EXAMPLES, first_id=0, **options):
    made, mesh = predictor(model, **options)
    with jax.set_mesh(mesh):
        found = list(made.predict(parameters(model), examples, first_id))
    return [ended(p.tokens) for p in found], [p.score for p in found]


@pytest.mark.parametrize(
    ("model", "mesh"),
    [(SWITCH, (1, 1, 1)), (TODAY, (2, 2, 2)), (ATTENTION, (2, 2, 2))],
    ids=["switch-one", "today-eight", "attention-eight"],
)
def test_greedy_words_are_those_of_the_model_without_a_cache(model, mesh):
    words, scores = predicted(model, mesh=mesh)
    assert words == [greedy(model, prompt) for prompt in PROMPTS]
    expected = [score(model, *each) for each in zip(PROMPTS, words, strict=True)]
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert len({tuple(w) for w in words}) > 2


def test_prompts_share_the_row_with_what_follows_where_they_have_no_length():
    words, _ = predicted(SWITCH, lengths={"targets": W})
    assert words == [greedy(SWITCH, prompt) for prompt in PROMPTS]
    words, _ = predicted(SWITCH, [{}], lengths={"targets": 1}, length=1)
    assert words == [greedy(SWITCH, [])[:1]], "a row of one token has no prompt"


@pytest.mark.parametrize("options", [{"temperature": 1.0}, {"num_beams": 3}], ids=str)
def test_a_row_alone_gets_what_it_gets_among_others(options):
    together, scores = predicted(SWITCH, **options)
    made, mesh = predictor(SWITCH, batch_size=1, **options)
    with jax.set_mesh(mesh):
        alone = [
            next(iter(made.predict(parameters(SWITCH), [example], index)))
            for index, example in enumerate(EXAMPLES)
        ]
    assert [ended(p.tokens) for p in alone] == together
    np.testing.assert_allclose([p.score for p in alone], scores, atol=1e-4)
    penalty = [((5 + len(w)) / 6) ** (0.6 * ("num_beams" in options)) for w in together]
    expected = [score(SWITCH, *each) for each in zip(PROMPTS, together, strict=True)]
    np.testing.assert_allclose(scores, np.divide(expected, penalty), atol=1e-4)


def test_as_many_beams_as_there_are_words_find_the_best_pair():
    made, mesh = predictor(SWITCH, length=2, num_beams=8, length_penalty=0.0)
    with jax.set_mesh(mesh):
        found = [ended(p.tokens) for p in made.predict(parameters(SWITCH), EXAMPLES)]
    pairs = [pair for pair in itertools.product(range(8), repeat=2) if pair[0] != EOS]
    for prompt, words in zip(PROMPTS, found, strict=True):
        assert words == list(max([*pairs, (EOS,)], key=lambda pair: score(SWITCH, prompt, pair)))


def test_a_score_is_of_the_targets_alone():
    model = dataclasses.replace(SWITCH, eval_expert_capacity_factor=4.0)
    made, mesh = predictor(model)
    with jax.set_mesh(mesh):
        found = list(made.score(parameters(model), EXAMPLES))
    expected = [score(model, *each) for each in zip(PROMPTS, TARGETS, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found[3] == 0.0, "there are no targets"
