import json
import math

import pytest

from switch_jax.config import DataConfig
from switch_jax.data.catalogue.checks import open_tasks
from switch_jax.evaluation.best_evaluation import (
    Best,
    check_metric,
    in_words,
    measured,
    metric_of,
)
from switch_jax.utils.differences import differences
from switch_jax.utils.errors import UserError
from tests.trainer.helpers import tiny_config, tiny_model

LENGTHS = {"inputs": 64, "targets": 20}
ENGLISH = DataConfig("english_span_corruption", LENGTHS, split="validation")


def test_best_counts_evaluations_since_the_best_and_gets_over_nan():
    best = Best()
    for step, value in enumerate([math.nan, -3.0, -2.0, -2.5, math.nan, -2.0]):
        best.update(step, value)
    assert best == Best(value=-2.0, step=2, since=3)
    assert best.in_words("accuracy") == "no better accuracy than that of step 2 in 3 evaluations"
    assert Best(**best.as_json()) == best
    none = Best()
    none.update(1, math.nan)
    assert (none.value, none.since) == (None, 1), "it brings the early stop nearer"
    assert none.in_words("accuracy") == "no number for accuracy in 1 evaluations"


def test_an_evaluation_in_words_is_of_all_and_begins_with_the_tasks_own_metrics():
    quality, held_out = "neg_log_perplexity", "held-out negative log perplexity -2.5000"
    results = {"a": {quality: -9.0}, "all": {quality: -2.5, "accuracy": 0.25, "dropped": 0.02}}
    assert in_words(results, quality) == held_out
    assert in_words(results, "all/accuracy") == f"{held_out}, all/accuracy 25.00 % of the tokens"
    results["all"]["dropped"] = 0.123
    assert in_words(results, quality) == f"{held_out}, 12.3% of the tokens dropped"
    own = {
        quality: -2.5,
        "generated": {"accuracy": 48.25, "f1": 30.0},
        "majority_baseline": {"accuracy": 52.0},
    }
    said = "generated text: accuracy 48.25 (majority baseline 52), f1 30"
    assert in_words({"a": own}, quality) == f"{said}; {held_out}"
    assert in_words({"a": own}, "generated_f1").endswith(", generated_f1 30.0000")
    results = {"a": own, "b": {quality: -1}, "all": {quality: -2.5, "generated": {"average": 39.1}}}
    assert in_words(results, quality) == f"generated text: average 39.1; {held_out}\n  a: {said}"


def test_a_metric_of_all_tasks_or_of_one():
    results = {
        "a": {"accuracy": 0.1, "generated": {"accuracy": 30.0}},
        "b": {"accuracy": 0.2},
        "all": {"accuracy": 0.3, "generated": {"average": 30.0}},
    }
    names = ("accuracy", "all/accuracy", "b/accuracy")
    assert [metric_of(results, name) for name in names] == [0.3, 0.3, 0.2]
    assert metric_of({"a": {"accuracy": 0.1}}, "all/accuracy") == 0.1
    assert metric_of(results, "a/generated_accuracy") == 30.0
    assert metric_of(results, "generated_average") == 30.0
    for name in ("a/generated_em", "b/generated_accuracy", "generated_accuracy"):
        message = f"'{name}': of generated text there are a/generated_accuracy, all/generated_av"
        with pytest.raises(UserError, match=message):
            metric_of(results, name)


@pytest.mark.parametrize("name", ["cross_entropy", "nobody/accuracy", "nobody/generated_em"])
def test_a_metric_that_is_not_there_is_refused(name):
    with pytest.raises(UserError, match=f"best_metric = '{name}': write neg_log.*bible_span_corr"):
        check_metric(name, open_tasks(ENGLISH), infer_eval=True)


CONFIG = tiny_config(tiny_model(), eval_steps=2, best_metric="accuracy")
SETS = {"a": "digest of a", "b": "digest of b"}


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        ("run", {"train_steps": 99, "random_seed": 5, "num_microbatches": 2}, []),
        ("run", {"best_metric": "b/accuracy"}, ["BEST_METRIC 'accuracy' -> 'b/accuracy'",
                                                "files of a 'digest of a' -> absent"]),
        ("run", {"eval_steps": 1, "batch_size": 16}, []),
        ("run", {"eval_steps": 1}, ["EVAL_STEPS * BATCH_SIZE 16 -> 8"]),
        ("data", {"pack": False}, ["PACK True -> False"]),
        ("data", {"task_feature_lengths": {"inputs": 16, "targets": 4}},
         ["TASK_FEATURE_LENGTHS {'inputs': 16, 'targets': 8} -> {'inputs': 16, 'targets': 4}"]),
        ("data", {"data_streams": 4, "random_seed": 5, "shuffle_train_examples": False}, []),
        ("data", {"vocabulary": "moved.model"}, []),
        ("data", {"use_cached_tasks": True}, []),
        ("model", {"eval_expert_capacity_factor": 1.0}, ["EVAL_EXPERT_CAPACITY_FACTOR 2.0 -> 1.0"]),
        ("model", {"group_size": 16, "decoder_group_size": 8},
         ["GROUP_SIZE 32 -> 16", "DECODER_GROUP_SIZE None -> 8"]),
        ("model", {"train_expert_capacity_factor": 2.0, "dropout_rate": 0.1, "jitter_noise": 0.0,
                   "load_balance": "none", "scan_layers": False, "remat_policy": "full"}, []),
    ],
)  # fmt: skip
def test_what_makes_the_values_of_evaluations_other_values(part, changes, said):
    before = json.loads(json.dumps(measured(CONFIG, SETS)))
    assert differences(before, measured(CONFIG.replace(part, **changes), SETS)) == said


def test_where_experts_choose_they_have_the_capacity_of_training_in_evaluations_too():
    config = CONFIG.replace("model", encoder_router_type="experts_choose")
    other = config.replace("model", train_expert_capacity_factor=2.0)
    said = ["TRAIN_EXPERT_CAPACITY_FACTOR 1.25 -> 2.0"]
    assert differences(measured(config, SETS), measured(other, SETS)) == said


def test_other_validation_sets_make_them_other_values_where_the_metric_is_of_them():
    of_a = CONFIG.replace("run", best_metric="a/accuracy")
    others = {**SETS, "b": "others"}
    assert differences(measured(of_a, SETS), measured(of_a, others)) == []
    said = "files of b 'digest of b' -> 'others'"
    assert differences(measured(CONFIG, SETS), measured(CONFIG, others)) == [said]
    assert measured(CONFIG, None) is None
