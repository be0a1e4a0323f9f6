import re

import pytest
import seqio

from switch_jax.data import registry
from switch_jax.errors import UserError


def test_an_unknown_name_is_reported_with_similar_ones():
    with pytest.raises(UserError, match="'bible_corruption': did you mean bible_span_corruption"):
        registry.provider("bible_corruption")
    with pytest.raises(UserError, match="'zzz': A task of your own .*`import my_tasks`"):
        registry.provider("zzz")


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (float("nan"), "the rate of toy_long in uneven is nan: give it a finite number of at"),
        (float("inf"), "the rate of toy_long in uneven is inf: give it"),
        (lambda task: -2, "the rate of toy_long in uneven is -2.0: give it"),
        (lambda task: None, "the rate of toy_long in uneven is no number (float() argument must"),
        (
            lambda task: "often",
            "toy_long in uneven is no number (could not convert string to float",
        ),
        (0.0, "the rates of toy_long, toy_pairs in uneven are all 0: give one a rate above 0"),
    ],
)
def test_a_rate_that_is_none_is_reported_with_its_task(rate, message):
    seqio.MixtureRegistry.add("uneven", [("toy_pairs", 0), ("toy_long", rate)])
    try:
        with pytest.raises(UserError, match=f"{re.escape(message)}"):
            registry.mixing_rates("uneven", registry.tasks_of("uneven"))
    finally:
        seqio.MixtureRegistry.remove("uneven")
