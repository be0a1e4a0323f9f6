"""The examples are those of t5's own steps, to the last token."""

import dataclasses
import functools

import numpy as np
import pytest
import seqio
import tensorflow as tf
from t5.data import preprocessors

from switch_jax.data import preprocessing
from switch_jax.data.catalogue.registry import get_mixture_or_task
from switch_jax.data.span_corruption import span_masking
from switch_jax.data.span_corruption.span_masking import SpanMasking

BIBLE = get_mixture_or_task("bible_span_corruption")
LENGTHS = {"inputs": 64, "targets": 16}
VOCABULARY = seqio.PassThroughVocabulary(size=1100)


def masked_by_t5(tokens, seed, density, mean_span):
    """inputs and targets of a row, by t5's functions for a single one."""
    return preprocessors.single_example_denoise(
        {"targets": tf.constant(tokens)},
        tf.constant(seed),
        output_features={name: seqio.Feature(VOCABULARY) for name in LENGTHS},
        noise_density=density,
        noise_mask_fn=functools.partial(
            preprocessors.random_spans_noise_mask, mean_noise_span_length=mean_span
        ),
        inputs_fn=preprocessors.noise_span_to_unique_sentinel,
        targets_fn=preprocessors.nonnoise_span_to_unique_sentinel,
    )


@pytest.mark.parametrize(("density", "mean_span"), [(0.15, 3.0), (0.5, 2.0), (0.3, 8.0)])
def test_rows_of_all_lengths_are_masked_as_t5_does(density, mean_span):
    rng = np.random.default_rng(0)
    lengths = np.array([1, 2, 3, 4, 5, 6, 7, 20, 73, 190, 568])  # 0.15 * 190 is above 28.5
    tokens = rng.integers(2, 900, (len(lengths), 568), np.int32)
    seeds = rng.integers(-(2**63), 2**63 - 1, (len(lengths), 2))
    seeds[-4:] = [[0, 0], [1, 2], [2**63 - 1, -(2**63)], [-1, 2**32]]
    no_limit = dict.fromkeys(LENGTHS, 1000)
    masking = SpanMasking(
        density, mean_span, 1100, dict.fromkeys(LENGTHS), no_limit, row_length=1000, merges=True
    )
    found = masking.examples({"targets": tokens, "length": lengths, "seed": seeds})
    for length, row, seed, example in zip(lengths, tokens, seeds, found, strict=True):
        expected = masked_by_t5(row[:length], seed, density, mean_span)
        for name in LENGTHS:
            assert example[name].dtype == np.int32
            np.testing.assert_array_equal(example[name], expected[name], err_msg=f"{length} {name}")


def block_examples(task, lengths):
    """The examples of two blocks of 40 lines, with their places, from the graph of blocks."""
    lines = task.source.get_dataset("train", shuffle=False)
    blocks = tf.data.Dataset.zip(
        (
            tf.data.Dataset.from_tensor_slices(np.array([[0, 0, 0], [0, 0, 1]])),
            tf.data.Dataset.from_tensor_slices(np.array([5, 6])),
            lines.take(80).window(40),
        )
    )
    graph = preprocessing.block_graph(task, lengths, False, True)
    elements = graph.graph(blocks).as_numpy_iterator()
    found = [(*map(int, location), int(i), ex) for location, i, ex in graph.examples(elements)]
    return graph.masking, [place for place in found if place[3] >= 0]


def with_arguments(task, **arguments):
    *steps, _, last = task.preprocessors
    masked = functools.partial(preprocessors.span_corruption, **arguments)
    return task.replace(preprocessors=[*steps, masked, last])


def without_eos(task):
    features = {
        name: dataclasses.replace(feature, add_eos=False)
        for name, feature in task.output_features.items()
    }
    return task.replace(output_features=features)


@pytest.mark.parametrize(
    "task",
    [
        BIBLE,
        with_arguments(BIBLE, merge_examples_to_reduce_padding=False, reserved_for_packing=10),
        without_eos(with_arguments(BIBLE, noise_density=0.3, mean_noise_span_length=5.0)),
        get_mixture_or_task("ul2.bible.x_8_50"),
    ],
    ids=["as_registered", "not_merged", "density_without_eos", "after_a_word"],
)
def test_blocks_have_the_examples_of_the_steps_in_their_order(task, monkeypatch):
    lengths = {"inputs": 64, "targets": 64}
    monkeypatch.setattr(preprocessing, "_GRAPHS", {})
    masking, found = block_examples(task, lengths)
    assert masking is not None
    monkeypatch.setattr(preprocessing, "_GRAPHS", {})
    monkeypatch.setattr(preprocessing, "span_masking", lambda *_: None)
    masking, expected = block_examples(task, lengths)
    assert masking is None and len(expected) > 100
    assert [place[:4] for place in found] == [place[:4] for place in expected]
    for place, other in zip(found, expected, strict=True):
        for name in lengths:
            np.testing.assert_array_equal(place[4][name], other[4][name])


def after_masking(dataset):
    return dataset


@pytest.mark.parametrize(
    "task",
    [
        BIBLE.replace(preprocessors=[*BIBLE.preprocessors, after_masking]),
        BIBLE.replace(preprocessors=BIBLE.preprocessors[:-2]),
        with_arguments(BIBLE, noise_density=0.6),
        with_arguments(BIBLE, mean_noise_span_length=1.0),
        with_arguments(BIBLE, sequence_length={"inputs": 80, "targets": 64}),
    ],
    ids=["another_step", "no_masking", "density", "mean_span", "lengths_of_its_own"],
)
def test_other_tasks_are_left_to_their_steps(task):
    assert span_masking.span_masking(task, {"inputs": 64, "targets": 64}) is None


def test_where_t5_draws_other_numbers_it_masks_itself(monkeypatch):
    rolled = functools.partial(preprocessors.random_spans_noise_mask, random_roll=True)
    monkeypatch.setattr(preprocessors, "random_spans_noise_mask", rolled)
    assert span_masking.span_masking(BIBLE, LENGTHS) is None
