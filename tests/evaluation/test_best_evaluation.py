import json
import math

import pytest

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


def test_an_evaluation_in_words_says_each_metric_once_with_its_unit_and_of_how_many():
    quality, tokens = "neg_log_perplexity", {"tokens": 1234.0}
    held_out, of = "held-out negative log perplexity -2.5000 nats a token", " (1,234 target tokens)"
    of_all = {quality: -2.5, "accuracy": 0.25, "dropped": 0.02, **tokens}
    results = {"a": {quality: -9.0}, "all": of_all}
    assert in_words(results, quality) == in_words(results, f"all/{quality}") == held_out + of
    assert in_words(results, f"a/{quality}") == f"{held_out}, a/{quality} -9.0000 nats a token{of}"
    share = "all/accuracy 25.00 % of the tokens"
    assert in_words(results, "all/accuracy") == f"{held_out}, {share}{of}"
    results["all"]["dropped"] = 0.123
    assert in_words(results, quality) == f"{held_out}, 12.30 % of the tokens dropped{of}"
    own = {
        **{quality: -2.5, **tokens},
        "examples": 64,
        "generated": {"accuracy": 48.25, "f1": 30.0},
        "majority_baseline": {"accuracy": 52.0},
    }
    said = "generated text of 64 examples: accuracy 48.25 (majority baseline 52), f1 30"
    for metric in (quality, f"a/{quality}", "generated_f1", "a/generated_f1"):
        assert in_words({"a": own}, metric) == f"{said}; {held_out}{of}"
    average = {**own, "examples": 65, "generated": {"average": 39.1}, "majority_baseline": {}}
    results = {"a": own, "b": {quality: -1}, "all": average}
    first = f"generated text of 65 examples: average 39.1; {held_out}{of}"
    for metric in (quality, "generated_average", "a/generated_f1"):
        assert in_words(results, metric) == f"{first}\n  a: {said}"


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
        message = f"BEST_METRIC = '{name}': write .* or a/generated_accuracy or all/generated_av"
        with pytest.raises(UserError, match=message):
            metric_of(results, name)


@pytest.mark.parametrize("name", ["f1", "nobody/accuracy", "a/generated_f1", "b/generated_em"])
def test_a_metric_that_is_not_there_is_refused_with_those_that_are(name):
    own = {"a": ["em", "rouge"]}
    message = f"BEST_METRIC = '{name}': write neg_log_.* or a/generated_em or a/generated_rouge or "
    with pytest.raises(UserError, match=f"{message}all/generated_average, .*; tasks are a, b, all"):
        check_metric(name, ["a", "b"], own)
    for known in ("accuracy", "b/accuracy", "a/generated_em", "generated_average"):
        check_metric(known, ["a", "b"], own)
    check_metric("generated_em", ["a"], own)
    check_metric("a/generated_any", ["a", "b"], {"a": []})  # not known yet


def test_without_infer_eval_a_metric_says_what_it_needs():
    with pytest.raises(UserError, match="BEST_METRIC = 'a/generated_em' .* INFER_EVAL = True$"):
        check_metric("a/generated_em", ["a"], None)
    with pytest.raises(
        UserError, match="content_accuracy, .* or with INFER_EVAL = True TASK/gener"
    ):
        check_metric("em", ["a"], None)


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
