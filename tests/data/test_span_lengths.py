import functools

import pytest
import seqio
from t5.data.preprocessors import span_corruption

from switch_jax.data.registry import provider
from switch_jax.data.span_lengths import check_lengths
from switch_jax.errors import UserError

BIBLE = provider("bible_span_corruption")


def examples(lengths):
    dataset = BIBLE.get_dataset(lengths, split="validation", shuffle=False, seed=0)
    return list(dataset.take(5).as_numpy_iterator())


@pytest.mark.parametrize(
    ("inputs", "targets"),
    # 128: round(0.15 * 141) = 21 tokens in 7 spans and EOS. 172: 29 tokens in 10 spans, where
    # t5 counts 28 in 9 and would cut off two tokens.
    [(128, 21 + 7 + 1), (172, 29 + 10 + 1)],
)
def test_targets_are_exactly_long_enough_or_refused(inputs, targets):
    check_lengths(BIBLE, {"inputs": inputs, "targets": targets})
    for example in examples({"inputs": inputs, "targets": targets + 10}):
        assert (len(example["inputs"]), len(example["targets"])) == (inputs, targets)
    with pytest.raises(UserError, match=rf"{targets - 1} are too short .* \+ 1 = {targets}$"):
        check_lengths(BIBLE, {"inputs": inputs, "targets": targets - 1})


def test_inputs_with_more_spans_than_sentinels_are_refused():
    with pytest.raises(UserError, match="114 spans .* 100 sentinels$"):
        check_lengths(BIBLE, {"inputs": 2048, "targets": 1000})
    check_lengths(BIBLE, {"inputs": 1809, "targets": 1000})
    with pytest.raises(UserError, match="101 spans"):
        check_lengths(BIBLE, {"inputs": 1810, "targets": 1000})
    # The vocabulary's ordinary pieces end at 999. At 1809 sentinel 100, the last, is used ...
    (example, *_) = examples({"inputs": 1809, "targets": 1000})
    assert sorted(token for token in example["inputs"] if token >= 1000) == list(range(1000, 1100))
    # ... and at 1810 t5 would go on with piece 999 (it also may stand in the text by itself).
    (example, *_) = examples({"inputs": 1810, "targets": 1000})
    assert 999 in example["inputs"] and 999 in example["targets"]


def test_inputs_that_hold_no_span_are_refused():
    with pytest.raises(UserError, match="length 4 do not fit .* masks 0 spans"):
        check_lengths(BIBLE, {"inputs": 4, "targets": 32})


def task(*preprocessors) -> seqio.Task:
    return seqio.Task(
        "unregistered",
        source=BIBLE.source,
        output_features=BIBLE.output_features,
        preprocessors=preprocessors,
    )


def test_the_density_of_the_task_counts():
    half = task(functools.partial(span_corruption, noise_density=0.5))
    with pytest.raises(UserError, match="targets of length 32 are too short"):
        check_lengths(half, {"inputs": 128, "targets": 32})
    check_lengths(half, {"inputs": 128, "targets": 128})


def test_other_tasks_are_free():
    check_lengths(task(), {"inputs": 4000, "targets": 1})
