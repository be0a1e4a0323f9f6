"""Counts of the tokens of each expert, where the router's choice follows from the token alone."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy.sparse import csr_array

from switch_jax.config import MeshConfig
from switch_jax.data.batch import empty_batch, write_row
from switch_jax.evaluation.expert_tokens import count_expert_tokens, expert_records
from switch_jax.model import init_parameters
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.tensorflow_setup import seqio
from tests.inference.models import DENSE

EXPERTS = 4
SWITCH = dataclasses.replace(
    DENSE, num_experts=EXPERTS, sparse_step=1, group_size=16, decoder_group_size=8
)
WORDS, DIM = SWITCH.num_embeddings, SWITCH.embed_dim
# Of each layer: the expert that each token prefers. The second best is the one after it.
PREFERRED = [[token % EXPERTS for token in range(WORDS)], [token // 2 for token in range(WORDS)]]


def parameters_of_a_known_choice():
    """A token's vector is its own axis in each layer, since nothing is ever added to it."""
    parameters = init_parameters(SWITCH, jax.random.key(0))
    parameters["token_embedding"]["embedding"] = np.eye(WORDS, DIM, dtype=np.float32)
    router = np.zeros((2, DIM, EXPERTS), np.float32)
    for layer, experts in enumerate(PREFERRED):
        for token, expert in enumerate(experts):
            router[layer, token, expert] = 2
            router[layer, token, (expert + 1) % EXPERTS] = 1
    for stack in ("encoder", "decoder"):
        block = parameters[stack]["blocks"]["layer_0"]
        block["feed_forward"] |= {"router": router, "wo": 0 * block["feed_forward"]["wo"]}
        for name in {"self_attention", "cross_attention"} & set(block):
            block[name]["out"] = 0 * block[name]["out"]
    return parameters


@pytest.mark.parametrize(("chosen", "mesh"), [(1, MeshConfig(1, 1, 1)), (2, MeshConfig(2, 2, 1))])
def test_counts_are_those_of_the_tokens_that_prefer_the_expert(chosen, mesh):
    rng = np.random.default_rng(0)
    rows = [
        {"inputs": rng.integers(2, WORDS, size), "targets": rng.integers(2, WORDS, size - 2)}
        for size in (16, 3, 9, 12, 7)
    ]
    batches = [empty_batch(4, {"inputs": 16, "targets": 8}) for _ in range(2)]
    for i, example in enumerate(rows):
        write_row(batches[i // 4], i % 4, [example])
    read = {
        "encoder": np.concatenate([row["inputs"] for row in rows]),
        # Each row begins with the id 0, and is cut off after 8 tokens.
        "decoder": np.concatenate(
            [[0, *row["targets"][:7]][: len(row["targets"])] for row in rows]
        ),
    }
    expected = {stack: np.zeros((2, EXPERTS, WORDS), int) for stack in read}
    for stack, tokens in read.items():
        for layer, experts in enumerate(PREFERRED):
            for token in tokens:
                for k in range(chosen):
                    expected[stack][layer, (experts[token] + k) % EXPERTS, token] += 1

    config = dataclasses.replace(SWITCH, num_selected_experts=chosen)
    devices = make_mesh(mesh)
    with jax.set_mesh(devices):
        counts = count_expert_tokens(config, devices, parameters_of_a_known_choice(), batches)
    assert list(counts) == ["encoder", "decoder"]
    for stack, layers in counts.items():
        np.testing.assert_array_equal([layer.toarray() for layer in layers], expected[stack])


def test_the_most_frequent_tokens_and_those_that_are_typical():
    """Bytes a to d are 3 more than their codes; expert 0 takes 100 tokens, expert 1 300."""
    by_hand = np.zeros((3, 256 + 3), int)
    ids = [ord(letter) + 3 for letter in "abcd"]
    by_hand[0, ids] = 60, 25, 10, 5
    by_hand[1, ids] = 240, 15, 0, 45
    vocabularies = {"inputs": seqio.ByteVocabulary()}
    counts = {"encoder": [csr_array(by_hand)]}
    first, second, unused = expert_records(counts, {"encoder": [(1, "feed_forward")]}, vocabularies)
    assert first == {
        "stack": "encoder",
        "layer": 1,
        "sublayer": "feed_forward",
        "expert": 0,
        "tokens": 100,
        "share": 0.25,
        "frequent": ["a", "b", "c", "d"],
        "frequent_counts": [60, 25, 10, 5],
        # c: 10 of 100 here and of 400 in all; b: 25 and 40. d is too rare; a: 60 and 300, less.
        "typical": ["c", "b"],
        "typical_ratios": [4.0, 2.5],
    }
    assert (second["frequent"], second["frequent_counts"]) == (["a", "d", "b"], [240, 45, 15])
    assert (second["typical"], second["typical_ratios"]) == (["d", "a"], [1.2, 1.067])
    assert (unused["expert"], unused["share"], unused["frequent"]) == (2, 0.0, [])


def test_the_first_token_that_the_decoder_reads_is_no_padding():
    by_hand = csr_array([[7, 0, 0, 0, 5]])  # the ids 0 and 4, a byte
    vocabularies = dict.fromkeys(("inputs", "targets"), seqio.ByteVocabulary())
    counts, routers = {"decoder": [by_hand]}, {"decoder": [(0, "feed_forward")]}
    (record,) = expert_records(counts, routers, vocabularies)
    assert record["frequent"] == ["<start>", "\\x01"]
