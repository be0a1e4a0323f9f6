"""What the first examples lose is counted by hand, or by SentencePiece."""

import json
import re

import numpy as np
import pytest
import seqio

from switch_jax.config import DataConfig
from switch_jax.data.catalogue.checks import open_tasks
from switch_jax.data.catalogue.lost_text import lost_text
from switch_jax.tasks import english
from switch_jax.tasks.building_blocks import TEXT_TO_TEXT, parse_json_lines
from tests.data.helpers import features, lines

UNKNOWN = "are unknown: the vocabulary lacks their characters"


def test_examples_that_lose_their_end_are_counted():
    """The lengths are those of `conftest.PAIRS`."""
    beginning = "toy_pairs: {} of the first 5 examples have more than {} tokens of {}, and lose"
    assert lost_text(open_tasks(DataConfig("toy_pairs", {"inputs": 4, "targets": 3}))) == [
        f"{beginning.format(2, 4, 'inputs')} their end",
        f"{beginning.format(1, 3, 'targets')} their end",
    ]
    assert lost_text(open_tasks(DataConfig("toy_mixture", {"inputs": 7, "targets": 4}))) == []


def test_only_the_first_examples_are_measured_with_their_eos(tmp_path, register):
    """Lines of 3 bytes and EOS, and a longer one behind the 200 that are measured."""
    rows = ['{"inputs": "abc", "targets": "a"}'] * 200 + ['{"inputs": "abcde", "targets": "a"}']
    (tmp_path / "lines").write_text("\n".join(rows))
    in_bytes = features(seqio.ByteVocabulary())
    register("of_bytes", lines(tmp_path / "lines"), [parse_json_lines, *TEXT_TO_TEXT], in_bytes)
    assert lost_text(open_tasks(DataConfig("of_bytes", {"inputs": 4, "targets": 2}))) == []
    (line,) = lost_text(open_tasks(DataConfig("of_bytes", {"inputs": 3, "targets": 2})))
    assert line.startswith("of_bytes: 200 of the first 200 examples have more than 3 tokens")


@pytest.fixture
def pairs(tmp_path, register):
    """A task `pairs` of JSON lines; the vocabulary is the English one unless another is given."""

    def write(rows, vocabulary=english.VOCABULARY):
        (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
        source, steps = lines(tmp_path / "pairs.jsonl"), [parse_json_lines, *TEXT_TO_TEXT]
        register("pairs", source, steps, features(vocabulary))

    return write


def lost_by_pairs(inputs, targets, **options):
    config = DataConfig("pairs", {"inputs": inputs, "targets": targets}, **options)
    return lost_text(open_tasks(config))


def test_unknown_tokens_are_counted_among_the_tokens_of_the_text(pairs):
    """ "▁who", "?", "▁", unknown: neither EOS nor sentinels are text, and 漢字 is one token."""
    pairs(
        [
            {"inputs": "who? 漢字 <extra_id_0>", "targets": "who?"},
            {"inputs": "who?", "targets": "漢"},
        ]
    )
    assert lost_by_pairs(8, 8) == [
        f"pairs: in the first 2 examples 1 of 6 tokens of inputs (16.67 %) and 1 of 4 tokens of "
        f"targets (25.00 %) {UNKNOWN}"
    ]
    assert lost_by_pairs(64, 64, vocabulary="byte") == []


def test_what_a_vocabulary_knows_or_writes_in_bytes_is_not_mentioned(pairs):
    pairs([{"inputs": "who?", "targets": "who?"}])
    assert lost_by_pairs(8, 8) == []


def test_span_corruption_fits_its_text_and_says_what_is_unknown(tmp_path, register):
    """200 times "▁who", "?", "▁" and an unknown one, of which some are masked."""
    (tmp_path / "x.txt").write_text("who? 漢字\n" * 200)
    of_english = features(english.VOCABULARY)
    register("masked", lines(tmp_path / "x.txt"), english.STEPS_OF_LINES, of_english)
    lengths = {"inputs": 64, "targets": 16}
    (line,) = lost_text(open_tasks(DataConfig("masked", lengths)))
    assert line.startswith("masked: in the first ") and line.endswith(UNKNOWN)
    counts = [(int(x), int(y)) for x, y in re.findall(r"(\d+) of (\d+) tokens", line)]
    assert np.sum(counts, 0).tolist() == [200, 800]
