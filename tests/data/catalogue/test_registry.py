import functools

import pytest
import seqio

from switch_jax.data.catalogue import registry
from switch_jax.utils.errors import UserError


def test_an_unknown_name_is_reported_with_similar_ones():
    with pytest.raises(UserError, match="'bible_corruption' .did you mean bible_span_corruption"):
        registry.provider("bible_corruption")
    with pytest.raises(UserError, match="'zzz': a task of your own .*`import my_tasks`"):
        registry.provider("zzz")


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (float("nan"), "uneven has the rates toy_long = nan, toy_pairs = 0.0: write finite n"),
        (lambda task: -2, "uneven has the rates toy_long = -2.0, toy_pairs"),
        (lambda task: None, "a rate of uneven is no number: float.* argument must"),
        (lambda task: "often", "a rate of uneven is no number: could not convert string to float"),
        (0.0, "rates toy_long = 0.0, toy_pairs = 0.0: write finite .* above 0$"),
    ],
)
def test_a_rate_that_is_none_is_reported(register, rate, message):
    register.mixture("uneven", [("toy_pairs", 0), ("toy_long", rate)])
    with pytest.raises(UserError, match=message):
        registry.mixing_rates("uneven", registry.tasks_of("uneven"))


def test_rates_by_examples_are_seqio_s(register):
    """min(examples, maximum) ** (1 / T)."""
    rate = functools.partial(seqio.mixing_rate_num_examples, temperature=2.0, maximum=400)
    for name, number in (("few", 100), ("many", 900)):
        source = seqio.TextLineDataSource({"train": "x.txt"}, num_input_examples={"train": number})
        register(name, source)
    register.mixture("counted", [("few", rate), ("many", rate)])
    assert registry.mixing_rates("counted", registry.tasks_of("counted")) == [10, 20]


def test_a_mixture_is_written_as_rates():
    name = "toy_mixture=3, toy_long=0.5"
    tasks = registry.tasks_of(name)
    assert [task.name for task in tasks] == ["toy_long", "toy_pairs"]
    # Half of the mixture's rate for each of its two tasks.
    assert registry.mixing_rates(name, tasks) == [0.5 + 1.5, 1.5]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("toy_pairs=3, toy_long", "'toy_long' is not NAME=RATE, as in"),
        ("toy_pairs=3,", "'' is not NAME=RATE, as in"),
        ("toy_pairs=3, toy_long=1, toy_pairs=1", "toy_long=1, toy_pairs=1' names a task twice"),
        ("toy_pairs=often", "'toy_pairs=often' is not NAME=RATE"),
        ("toy_pears=3, toy_long=1", "registered as 'toy_pears' .did you mean toy_pairs"),
    ],
)
def test_rates_that_are_no_mixture(name, message):
    with pytest.raises(UserError, match=message):
        registry.provider(name)
