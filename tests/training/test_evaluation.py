import math

import pytest

from switch_jax.data.pipeline import DataConfig
from switch_jax.errors import UserError
from switch_jax.training.evaluation import Best, check_metric, metric_of

ENGLISH = DataConfig("english_span_corruption", {"inputs": 64, "targets": 20})


def test_best_counts_evaluations_since_the_best_and_gets_over_nan():
    best = Best()
    for step, value in enumerate([math.nan, -3.0, -2.0, -2.5, math.nan, -2.0]):
        best.update(step, value)
    assert best == Best(value=-2.0, step=2, since=3)
    assert Best(**best.as_json()) == best


def test_a_metric_of_all_tasks_or_of_one():
    results = {"a": {"accuracy": 0.1}, "b": {"accuracy": 0.2}, "all": {"accuracy": 0.3}}
    names = ("accuracy", "all/accuracy", "b/accuracy")
    assert [metric_of(results, name) for name in names] == [0.3, 0.3, 0.2]
    assert metric_of({"a": {"accuracy": 0.1}}, "all/accuracy") == 0.1


@pytest.mark.parametrize("name", ["cross_entropy", "nobody/accuracy", "accuracy/all"])
def test_a_metric_that_is_not_there_is_refused(name):
    with pytest.raises(UserError, match=f"best_metric = '{name}': write neg_log.*bible_span_corr"):
        check_metric(name, ENGLISH)
