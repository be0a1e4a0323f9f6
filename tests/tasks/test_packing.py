"""Through the whole pipeline, packed: no token is lost or comes twice."""

import collections
import itertools

import pytest
import seqio

from switch_jax.config import DataConfig
from switch_jax.data.catalogue.checks import open_tasks
from switch_jax.data.catalogue.registry import get_mixture_or_task
from switch_jax.data.eval_batches import eval_batches
from switch_jax.data.train_batches import TrainBatches
from tests.data.helpers import validation
from tests.tasks.records import in_schema, preprocess, restore
from tests.tasks.test_records import TRIVIA
from tests.trainer.helpers import STACKS


def unpacked(batches):
    """(Inputs, targets) of the examples, in their order."""
    for batch in batches:
        for row in range(len(batch["encoder_input_tokens"])):
            segments = batch["encoder_segment_ids"][row], batch["decoder_segment_ids"][row]
            tokens = batch["encoder_input_tokens"][row], batch["decoder_target_tokens"][row]
            assert segments[0].max() == segments[1].max()
            assert all((t[s == 0] == 0).all() for s, t in zip(segments, tokens, strict=True))
            for n in range(1, segments[0].max() + 1):
                yield tuple(
                    tuple(t[s == n].tolist()) for s, t in zip(segments, tokens, strict=True)
                )


def test_questions_and_answers(register):
    task = get_mixture_or_task("trivia_qa_open")

    def read(split, shuffle_files, seed=None):
        return in_schema(task.source.tfds_dataset.name, TRIVIA.records)

    source = seqio.FunctionDataSource(read, splits=["train", "validation"])
    register("of_records", source, task.preprocessors, task.output_features)
    expected = collections.Counter(
        (tuple(ex["inputs"].tolist()), tuple(ex["targets"].tolist()))
        for ex in preprocess(task.name, TRIVIA.records)
    )
    # A row that one epoch fills to its last token.
    sizes = [sum(map(len, column)) for column in zip(*expected.elements(), strict=True)]
    lengths = dict(zip(("inputs", "targets"), sizes, strict=True))
    config = DataConfig("of_records", lengths, vocabulary="byte")
    (batch,) = eval_batches(validation(config), STACKS, 1)
    assert collections.Counter(unpacked([batch])) == expected
    batch, _ = next(TrainBatches(open_tasks(config), STACKS, 1))
    assert collections.Counter(unpacked([batch])) == expected


@pytest.mark.parametrize("name", ["bible_span_corruption", "udhr.zh"])
def test_spans_put_back_are_the_text(name):
    task = get_mixture_or_task(name)
    vocabulary = task.output_features["targets"].vocabulary
    source = task.source.get_dataset("validation", shuffle=False).as_numpy_iterator()
    texts = [(ex["text"] if isinstance(ex, dict) else ex).decode() for ex in source]
    expected = collections.Counter(itertools.chain(*map(vocabulary.encode, texts)))
    config = DataConfig(name, {"inputs": 64, "targets": 32})
    found = list(unpacked(eval_batches(validation(config), STACKS, 8)))
    first_sentinel = vocabulary.vocab_size - 100
    restored = (restore(*example, first_sentinel) for example in found)
    assert collections.Counter(itertools.chain(*restored)) == expected
    masked = sum(token < first_sentinel for _, targets in found for token in targets[:-1])
    assert masked / expected.total() == pytest.approx(0.15, abs=0.01)
