import pytest

from switch_jax.data.catalogue import registry
from switch_jax.utils.errors import UserError


def test_an_unknown_name_is_reported_with_similar_ones():
    with pytest.raises(UserError, match="'bible_corruption' .did you mean bible_span_corruption"):
        registry.get_mixture_or_task("bible_corruption")
    with pytest.raises(UserError, match="'zzz': a task of your own .*`import my_tasks`"):
        registry.get_mixture_or_task("zzz")


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (float("nan"), "uneven has the rates toy_long = nan, toy_pairs = 0.0: write finite n"),
        (lambda task: None, "a rate of uneven is no number: float.* argument must"),
        (0.0, "rates toy_long = 0.0, toy_pairs = 0.0: write finite .* above 0$"),
    ],
)
def test_a_rate_that_is_none_is_reported(register, rate, message):
    register.mixture("uneven", [("toy_pairs", 0), ("toy_long", rate)])
    with pytest.raises(UserError, match=message):
        registry.mixing_rates("uneven", registry.get_tasks("uneven"))


def test_a_mixture_is_written_as_rates():
    name = "toy_mixture=3, toy_long=0.5"
    tasks = registry.get_tasks(name)
    assert [task.name for task in tasks] == ["toy_long", "toy_pairs"]
    # Half of the mixture's rate for each of its two tasks.
    assert registry.mixing_rates(name, tasks) == [0.5 + 1.5, 1.5]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("toy_pairs=3, toy_long", "'toy_long' is not NAME=RATE, as in"),
        ("toy_pears=3, toy_long=1", "registered as 'toy_pears' .did you mean toy_pairs"),
        ("toy_pairs=3,", "'' is not NAME=RATE, as in"),
        ("toy_pairs=3, toy_long=1, toy_pairs=1", "toy_long=1, toy_pairs=1' names a task twice"),
    ],
)
def test_rates_that_are_no_mixture(name, message):
    with pytest.raises(UserError, match=message):
        registry.get_mixture_or_task(name)
