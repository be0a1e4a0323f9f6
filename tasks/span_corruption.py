"""The earlier name of `building_blocks`, which tasks of users may import."""

from switch_jax.tasks.building_blocks import (  # noqa: F401
    SPAN_CORRUPTION,
    T5_FEATURES,
    TEXT_TO_TEXT,
    answer_text,
    features,
    language_rate,
    parse_json_lines,
    trivia_qa,
)
