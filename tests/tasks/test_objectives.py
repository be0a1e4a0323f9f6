"""Pretraining on text by several objectives, on texts that are written out or counted."""

import functools
import itertools

import numpy as np
import pytest
import seqio
import tensorflow as tf
from t5.data import preprocessors

from switch_jax.config import DataConfig
from switch_jax.data.catalogue.checks import check_examples, check_tasks, open_tasks
from switch_jax.data.catalogue.configured_tasks import ordered_examples
from switch_jax.data.catalogue.registry import get_mixture_or_task, get_tasks
from switch_jax.data.catalogue.vocabularies import with_vocabulary
from switch_jax.data.catalogue.vocabulary_training import train
from switch_jax.data.task_examples import TaskExamples
from switch_jax.data.train_batches import TrainBatches
from switch_jax.tasks import c4, english
from switch_jax.tasks.building_blocks import FULL_LM, PREFIX_LM, add_ul2, features
from switch_jax.tasks.named_vocabularies import BYTE
from switch_jax.utils.errors import UserError
from tests.data.helpers import assert_same, lines
from tests.tasks.records import rates_of, restore, shipped
from tests.trainer.helpers import ONE_STACK, STACKS

# By the end of a denoiser's name: its word, mean span and share of masked tokens, as in table 1 of
# Tay et al. 2022.
SPANS = {
    "r_3_15": ("[R]", 3, 0.15),
    "r_8_15": ("[R]", 8, 0.15),
    "x_3_50": ("[X]", 3, 0.5),
    "x_8_50": ("[X]", 8, 0.5),
    "x_64_15": ("[X]", 64, 0.15),
    "x_64_50": ("[X]", 64, 0.5),
}
WORD = 3  # tokens of "[R]"
LENGTHS = {"inputs": 256, "targets": 256}


def in_bytes(*texts):
    """Ids of the texts in bytes, with EOS, 1, for each "|"."""
    return [[1 if byte == ord("|") else byte + 3 for byte in text.encode()] for text in texts]


def ids(examples, feature):
    return [example[feature].tolist() for example in examples]


@pytest.fixture
def own(tmp_path, register):
    """Registers own text of a few lines by some steps."""

    def add(steps, *texts):
        (tmp_path / "own.txt").write_text("".join(f"{text}\n" for text in texts))
        return register("own", lines(tmp_path / "own.txt"), steps, features(BYTE))

    return add


def test_full_lm_cuts_the_texts_one_after_the_other_into_rows(own):
    task = own(FULL_LM, "ab", "c", "", "defg")
    dataset = task.get_dataset({"targets": 4}, split="train", shuffle=False)
    examples = list(dataset.as_numpy_iterator())
    assert ids(examples, "targets") == in_bytes("ab|c", "|def", "g|")
    assert {name for example in examples for name in example} == {"targets"}


def test_an_epoch_of_full_lm_has_each_text_once_and_a_run_goes_on_exactly(own):
    """ "text 0" to "text 9" with EOS are 7 bytes each, and the others 8: together 15 x 50 + 40."""
    texts = [f"text {number}" for number in range(100)]
    own(FULL_LM, *texts)
    opened = open_tasks(DataConfig("own", {"targets": 50}))
    check_examples(opened, ONE_STACK)
    batches = list(itertools.islice(TrainBatches(opened, ONE_STACK, 4), 8))
    epochs = np.concatenate([batch["decoder_target_tokens"] for batch, _ in batches])
    (text,) = in_bytes("".join(f"{text}|" for text in texts))
    for epoch in (epochs[:16], epochs[16:]):
        assert sorted((row > 0).sum() for row in epoch) == [40] + 15 * [50]
        assert sorted(epoch[epoch > 0]) == sorted(text)
    assert not np.array_equal(epochs[:16], epochs[16:])
    again = TrainBatches(opened, ONE_STACK, 4, batches[2][1])
    for (batch, _), (other, _) in zip(batches[3:], again, strict=False):
        assert_same(batch, other)
    with pytest.raises(UserError, match="own have targets, but no inputs, which this model needs"):
        check_examples(open_tasks(DataConfig("own", LENGTHS)), STACKS)


def test_prefix_lm_divides_rows_anywhere_and_loses_nothing(own):
    task = own(PREFIX_LM, *["abcdefghijklmnopqr"] * 40)
    lengths = {"inputs": 10, "targets": 9}
    check_tasks([task], DataConfig("own", lengths))
    dataset = task.get_dataset(lengths, split="train", shuffle=False, seed=0)
    examples = list(dataset.as_numpy_iterator())
    inputs, targets = ids(examples, "inputs"), ids(examples, "targets")
    assert {row[-1] for row in inputs + targets} == {1}
    rows = [a[:-1] + b[:-1] for a, b in zip(inputs, targets, strict=True)]
    assert rows == 40 * in_bytes("abcdefghi", "jklmnopqr")
    assert {len(row) - 1 for row in inputs} == set(range(1, 9))
    with pytest.raises(UserError, match="^targets of length 8 are .* own: .* 9 tokens.* to 9$"):
        check_tasks([task], DataConfig("own", {"inputs": 10, "targets": 8}))
    with pytest.raises(UserError, match="^own makes inputs, and .* gives them no length"):
        check_tasks([task], DataConfig("own", {"targets": 8}))
    with pytest.raises(UserError, match="^inputs of length 2 are too short for own$"):
        check_tasks([task], DataConfig("own", {"inputs": 2, "targets": 8}))


def test_a_higher_share_of_prefix_takes_shorter_targets(own):
    short = functools.partial(preprocessors.prefix_lm, noise_density=0.25)
    task = own([*PREFIX_LM[:-2], short, PREFIX_LM[-1]], "ab")
    # Of 9 tokens at least round(0.5 * 8) = 4 are inputs; 5 and EOS are targets.
    check_tasks([task], DataConfig("own", {"inputs": 10, "targets": 6}))
    with pytest.raises(UserError, match="to 6$"):
        check_tasks([task], DataConfig("own", {"inputs": 10, "targets": 5}))


@pytest.mark.parametrize("objective", ["span_corruption", "prefix_lm", "full_lm"])
def test_c4_has_the_examples_of_t5_s_task(objective):
    records = {"text": shipped("bible.validation.txt.gz")[:20], "url": 20 * ["http://a.b"]}
    found = []
    for name in (f"c4_{objective}", f"c4_v220_{objective}"):
        task = with_vocabulary(get_mixture_or_task(name), "byte")
        dataset = task.preprocess_precache(tf.data.Dataset.from_tensor_slices(records), seed=1)
        dataset = task.preprocess_postcache(dataset, {"inputs": 128, "targets": 128}, seed=1)
        found.append(list(dataset.as_numpy_iterator()))
        tokens = task.output_features.keys() & found[-1][0].keys()
    assert len(found[0]) == len(found[1]) > 20
    assert tokens == ({"targets"} if objective == "full_lm" else {"inputs", "targets"})
    for name in tokens:
        assert ids(found[0], name) == ids(found[1], name)


def verses(tokens):
    """The first tokens of the Bible's validation split."""
    lines = map(english.VOCABULARY.encode, shipped("bible.validation.txt.gz"))
    return list(itertools.islice(itertools.chain(*lines), tokens))


@pytest.mark.parametrize("kind", SPANS)
def test_a_denoiser_masks_its_share_in_its_spans_and_nothing_is_lost(kind):
    word, mean_span, density = SPANS[kind]
    config = DataConfig(f"ul2.bible.{kind}", LENGTHS, split="validation")
    examples = ordered_examples(get_mixture_or_task(config.mixture_or_task_name), config, STACKS)
    first_sentinel = english.VOCABULARY.vocab_size - 100
    text = []
    for example in itertools.islice(examples, 10):
        inputs, targets = example["inputs"].tolist(), example["targets"].tolist()
        assert inputs[:WORD] == english.VOCABULARY.encode(word)
        row = restore(inputs[WORD:], targets, first_sentinel)
        spans = sum(token >= first_sentinel for token in targets)
        masked = len(targets) - spans - 1
        assert masked == pytest.approx(density * len(row), abs=0.5)
        assert masked == pytest.approx(mean_span * spans, abs=mean_span / 2)
        assert LENGTHS["inputs"] - len(inputs) in (0, 1)  # 1: another token would be masked
        text += row
    assert text == verses(len(text))


def test_the_denoiser_s_goes_on_with_a_text_for_a_quarter_of_its_tokens():
    """L / 4 on average (UL2, table 1); any length up to L / 2 is as probable."""
    config = DataConfig("ul2.bible.s", LENGTHS, split="validation")
    examples = ordered_examples(get_mixture_or_task("ul2.bible.s"), config, STACKS)
    text, shares = [], []
    for example in itertools.islice(examples, 300):
        inputs, targets = example["inputs"].tolist(), example["targets"].tolist()
        assert inputs[:WORD] == english.VOCABULARY.encode("[S]")
        row = inputs[WORD:-1] + targets[:-1]
        shares.append((len(targets) - 1) / len(row))
        text += row
    assert text == verses(len(text))
    assert np.mean(shares) == pytest.approx(0.25, abs=0.02)
    assert np.histogram(shares, 4, (0, 0.5))[0] == pytest.approx(np.full(4, 75), abs=25)


def test_ul2_mixes_its_seven_denoisers_equally(monkeypatch):
    rates = rates_of("english_ul2")
    assert len(rates) == 21 and len(set(rates.values())) == 1
    kinds = [*SPANS, "s"]
    assert set(rates_of("c4_ul2")) == {f"ul2.c4.{kind}" for kind in kinds}

    def read(task_examples, stream, cursor):
        """The number of the denoiser, from 1, as every example."""
        kind = task_examples._task.name.removeprefix("ul2.bible.")
        number = np.array([kinds.index(kind) + 1])
        return itertools.repeat(({"inputs": number, "targets": number}, cursor))

    monkeypatch.setattr(TaskExamples, "read", read)
    batch, _ = next(
        TrainBatches(open_tasks(DataConfig("bible_ul2", LENGTHS, pack=False)), STACKS, 7000)
    )
    counts = np.bincount(batch["encoder_input_tokens"][:, 0])
    assert counts[1:] == pytest.approx(np.full(7, 1000), rel=0.1)


@pytest.fixture
def ul2_with_128_sentinels(register):
    pieces = english.VOCABULARY.sentencepiece_model_file
    source = lines(english.DATA / "README.md")
    add_ul2("readme", source, seqio.SentencePieceVocabulary(pieces, extra_ids=128))
    yield get_tasks("readme_ul2")
    seqio.MixtureRegistry.remove("readme_ul2")
    for kind in (*SPANS, "s"):
        seqio.TaskRegistry.remove(f"ul2.readme.{kind}")


def test_ul2_reads_512_tokens_with_as_many_sentinels_as_t5_s_embedding_holds(
    ul2_with_128_sentinels,
):
    """Half of 762 tokens in spans of 3: 381 in 127 spans; 381 + 127 + 1 = 509, and the word."""
    lengths = {"inputs": 512, "targets": 512}
    check_tasks(ul2_with_128_sentinels, DataConfig("readme_ul2", lengths))
    with pytest.raises(UserError, match="do not fit ul2.bible.x_3_50: it masks 127 spans.* 100 s"):
        check_tasks(get_tasks("bible_ul2"), DataConfig("bible_ul2", lengths))
    with pytest.raises(UserError, match="^targets of length 508 .* which takes 381 .* 1 = 509$"):
        check_tasks(ul2_with_128_sentinels, DataConfig("readme_ul2", lengths | {"targets": 508}))
    (task, *_) = get_tasks("c4_ul2")
    assert {f.vocabulary.extra_ids for f in task.output_features.values()} == {128}
    assert task.source is c4.SOURCES["c4"]


def test_ul2_says_which_inputs_its_sentinels_serve():
    """As the docstring of `add_ul2`; a span of 64 takes 64 / 2 / 0.15 = 213.3 tokens of text."""
    tasks = get_tasks("bible_ul2")
    for length in (190, 400):
        check_tasks(tasks, DataConfig("bible_ul2", {"inputs": length, "targets": length}))
    with pytest.raises(UserError, match="180 do not fit ul2.bible.x_64_15: it masks 0 spans"):
        check_tasks(tasks, DataConfig("bible_ul2", {"inputs": 180, "targets": 180}))


def test_words_that_a_vocabulary_reads_alike_are_refused(tmp_path):
    """It is trained on small letters: R, S and X are unknown to it."""
    (tmp_path / "small.model").write_bytes(train(40 * ["abc [d] efg [h]"], 15, byte_fallback=False))
    vocabulary = seqio.SentencePieceVocabulary(str(tmp_path / "small.model"), extra_ids=100)
    features_of_it = features(vocabulary)
    tasks = [task.replace(output_features=features_of_it) for task in get_tasks("bible_ul2")]
    with pytest.raises(UserError, match=r"the words \[R\] and \[S\] .* are the same tokens"):
        check_tasks(tasks, DataConfig("bible_ul2", LENGTHS))
