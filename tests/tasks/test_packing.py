"""Through the whole pipeline, packed: no token is lost or comes twice, whatever the family."""

import collections
import itertools

import pytest
import seqio

from switch_jax.config import DataConfig
from switch_jax.data.catalogue.checks import open_tasks
from switch_jax.data.catalogue.registry import provider
from switch_jax.data.eval_batches import eval_batches
from switch_jax.data.train_batches import TrainBatches
from switch_jax.tasks.vocabularies import BYTE
from tests.data.helpers import assert_same, validation
from tests.tasks.records import in_schema, preprocess, restore
from tests.tasks.test_records import ANLI, ARC, BOOLQ, TRIVIA, XSUM

TEXT = {family.names[0]: family.records for family in (ANLI, ARC, BOOLQ, TRIVIA, XSUM)}
PAGES = [
    {
        "text": "Sphinx of black quartz, judge my vow." * n,
        "url": "https://example.org",
        "content-type": "text/plain",
        "content-length": "37",
        "timestamp": "2019-04-25T12:57:54Z",
    }
    for n in (1, 2, 9)
]
SPANS = {"c4_span_corruption": PAGES, "mc4.iw": PAGES}
SHORT = {"inputs": 128, "targets": 64}


@pytest.fixture
def given(register):
    """Registers a task whose source is these records, in the schema of its data set."""

    def add(name, records):
        def read(split, shuffle_files, seed=None):
            # Today's TFDS has no schema of the versions that it cannot make.
            data_set = "c4/en:3.1.0" if name in SPANS else provider(name).source.tfds_dataset.name
            return in_schema(data_set, records)

        source = seqio.FunctionDataSource(read, splits=["train", "validation"])
        task = provider(name)
        return register(f"{name}_of_records", source, task.preprocessors, task.output_features).name

    return add


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


def trained_on(config, count):
    """The first `count` examples of training, those of one epoch."""
    batches = (batch for batch, _ in TrainBatches(open_tasks(config), 1))
    return list(itertools.islice(unpacked(batches), count))


@pytest.mark.parametrize("name", sorted(TEXT))
def test_questions_and_answers(name, given):
    expected = collections.Counter(
        (tuple(ex["inputs"].tolist()), tuple(ex["targets"].tolist()))
        for ex in preprocess(name, TEXT[name])
    )
    # A row that one epoch fills to its last token.
    sizes = [sum(map(len, column)) for column in zip(*expected.elements(), strict=True)]
    lengths = dict(zip(("inputs", "targets"), sizes, strict=True))
    config = DataConfig(given(name, TEXT[name]), lengths, vocabulary="byte")
    (batch,) = eval_batches(validation(config), 1)
    assert collections.Counter(unpacked([batch])) == expected
    batch, _ = next(TrainBatches(open_tasks(config), 1))
    assert collections.Counter(unpacked([batch])) == expected
    assert_same(batch, next(TrainBatches(open_tasks(config), 1))[0])


@pytest.mark.parametrize("name", sorted(SPANS))
def test_spans_put_back_are_the_pages(name, given):
    config = DataConfig(given(name, SPANS[name]), SHORT, vocabulary="byte")
    first_sentinel = BYTE.vocab_size - 100
    expected = collections.Counter(b for page in PAGES for b in BYTE.encode(page["text"]))
    found = list(unpacked(eval_batches(validation(config), 2)))
    restored = [restore(*example, first_sentinel) for example in found]
    assert collections.Counter(itertools.chain(*restored)) == expected
    trained = trained_on(config, len(found))
    # Other spans than in evaluation, in another order, of the same pieces of pages.
    assert collections.Counter(tuple(restore(*ex, first_sentinel)) for ex in trained) == (
        collections.Counter(map(tuple, restored))
    )
    assert trained == trained_on(config, len(found))


@pytest.mark.parametrize("name", ["bible_span_corruption", "udhr.zh"])
def test_the_text_that_comes_with_the_library(name):
    task = provider(name)
    vocabulary = task.output_features["targets"].vocabulary
    source = task.source.get_dataset("validation", shuffle=False).as_numpy_iterator()
    texts = [(ex["text"] if isinstance(ex, dict) else ex).decode() for ex in source]
    expected = collections.Counter(itertools.chain(*map(vocabulary.encode, texts)))
    config = DataConfig(name, {"inputs": 64, "targets": 32})
    found = list(unpacked(eval_batches(validation(config), 8)))
    first_sentinel = vocabulary.vocab_size - 100
    restored = (restore(*example, first_sentinel) for example in found)
    assert collections.Counter(itertools.chain(*restored)) == expected
    masked = sum(token < first_sentinel for _, targets in found for token in targets[:-1])
    assert masked / expected.total() == pytest.approx(0.15, abs=0.01)
