from switch_jax.config import DataConfig
from switch_jax.data.catalogue.task_preview import first_examples


def test_examples_are_shown_as_ids_and_as_text_with_sentinels():
    lengths = {"inputs": 64, "targets": 32}
    text = first_examples(DataConfig("bible_span_corruption", lengths, split="validation"), count=2)
    lines = text.splitlines()
    assert len(lines) == 2 * 5
    assert lines[0] == "bible_span_corruption, validation, example 1"
    assert lines[1].startswith("  inputs, 64 tokens: ") and lines[1].endswith(" 1")
    assert " ... " in lines[1]
    assert "<extra_id_0>" in lines[2]
    # round(0.15 * 70) = 10 tokens in 3 spans, and EOS; <extra_id_0> is the last id.
    assert lines[3].startswith("  targets, 14 tokens: 1099 ")
    assert lines[4].startswith("    <extra_id_0>")
