"""Downstream scores and upstream quality, from numbers written by hand."""

import json
import shutil

import numpy as np
import pytest

from switch_jax.reports.downstream import Setting
from switch_jax.reports.findings import read_findings
from switch_jax.reports.tables import downstream_numbers, downstream_over_seeds
from tests.reports.evaluated import GREEDY, add_scores, generated, given


def read(*folders):
    return read_findings(folders)


def score_rows(findings):
    return [(label, cells) for label, cells in downstream_numbers(findings).rows if ":" in label]


def upstream_rows(findings):
    return downstream_numbers(findings).rows[:2]


def test_a_run_that_was_not_evaluated_has_nothing(make_run):
    found = read(make_run("dense", num_experts=0, steps=100))
    (run,) = found.runs
    assert (run.scores, run.origin, run.left_out) == ({}, None, ())
    assert not downstream_numbers(found) and found.measures == []


def test_the_newest_record_of_a_checkpoint_counts(make_tuned):
    lines = [
        generated(200, "squad", em=60.0, f1=70.0),
        generated(100, "squad", em=50.0, f1=65.0),
        given(100, "squad", -0.5),
        generated(200, "squad", em=61.0, f1=71.0),
    ]
    (run,) = read(make_tuned("t", 0, None, lines, tail='{"kind": "gener')).runs
    scores = run.scores
    found = scores[Setting("squad", "validation", GREEDY, None)]
    assert list(scores) and list(found.values) == ["em", "f1"] and found.metric == "em"
    np.testing.assert_array_equal(found.step, [100, 200])
    np.testing.assert_array_equal(found.values["em"], [50.0, 61.0])
    np.testing.assert_array_equal(found.values["f1"], [65.0, 71.0])


def test_scores_of_the_run_itself_are_apart_from_those_of_its_checkpoints(make_tuned):
    lines = [generated(200, "squad", em=61.0), generated(200, "squad", max_examples=3, em=62.0)]
    folder = make_tuned("t", 0, None, lines)
    of_the_run = [
        {"kind": "eval", "step": step, "task": "squad", "neg_log_perplexity": -1.0, "generated": g}
        for step, g in ((100, {"em": 50.0}), (200, {"em": 60.0}), (300, {"em": 55.0}))
    ]
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in of_the_run)
    rows = score_rows(read(folder))
    assert [row for row in rows if "best" in row[0]] == [
        ("squad (greedy, in the run): em [%], best", ["60.00 % at step 200"]),
        (f"squad ({GREEDY}; all examples): em [%], best", ["61.00 % at step 200"]),
        (f"squad ({GREEDY}; at most 3 examples): em [%], best", ["62.00 % at step 200"]),
    ]


def test_every_metric_is_reported_at_the_best_of_the_first_and_at_the_last(make_tuned):
    lines = [
        generated(step, "squad", em=em, f1=f1)
        for step, em, f1 in ((100, 50.0, 99.0), (200, 62.5, 71.25), (1300, 61.0, 72.0))
    ]
    lines += [generated(step, "qa", average=avg) for step, avg in ((100, None), (200, 1.0))]
    other = [{**generated(50, "squad", em=10.0), "majority_baseline": {"em": 33.0}}]
    rows = score_rows(read(make_tuned("t", 0, None, lines), make_tuned("u", 8, None, other)))
    assert rows == [
        ("qa: average, best", ["1.000 at step 200", ""]),
        ("qa: average, last", ["1.000", ""]),
        ("squad: em [%], best", ["62.50 % at step 200", "10.00 % at step 50"]),
        ("squad: em [%], last", ["61.00 %", "10.00 %"]),
        ("squad: em [%], majority baseline", ["", "33.00 %"]),
        ("squad: f1 [%], best", ["71.25 % at step 200", ""]),
        ("squad: f1 [%], last", ["72.00 %", ""]),
    ]


def test_what_differs_is_reported_and_kept_apart(make_tuned):
    lines = [
        generated(1, "squad", em=60.0),
        generated(1, "squad", decoding="4 beams", em=61.0),
        generated(1, "squad", split="test", em=62.0),
        generated(1, "xsum", max_examples=3, rouge=7.0),
        generated(1, "xsum", rouge=8.0),
        generated(1, "boolq", accuracy=9.0),
    ]
    rows = score_rows(read(make_tuned("t", 0, None, lines)))
    assert [(label, *cells) for label, cells in rows if label.endswith("last")] == [
        (f"squad (validation; {GREEDY}): em [%], last", "60.00 %"),
        ("squad (validation; 4 beams): em [%], last", "61.00 %"),
        (f"squad (test; {GREEDY}): em [%], last", "62.00 %"),
        ("xsum (at most 3 examples): rouge [%], last", "7.00 %"),
        ("xsum (all examples): rouge [%], last", "8.00 %"),
        ("boolq: accuracy [%], last", "9.00 %"),
    ]


@pytest.mark.parametrize("step, value", [(400, -2.0), (599, -2.0), (600, -1.5), (1000, -1.25)])
def test_upstream_quality_is_that_of_the_last_evaluation_before_the_checkpoint(
    make_tuned, make_pretrained, step, value
):
    folder = make_pretrained("web_switch", {400: -2.0, 600: -1.5, 800: -1.25})
    found = read(make_tuned("t", 8, f"{folder}/checkpoints/{step}", []))
    assert found.upstream_task == "all"
    assert upstream_rows(found) == [
        ("Started from", [f"web_switch, step {step:,}"]),
        ("Upstream neg. log perplexity [nats]", [f"{value:.3f}"]),
    ]


def test_without_an_evaluation_before_it_the_checkpoints_own_counts(make_tuned, make_pretrained):
    folder = make_pretrained("early", {400: -2.0})
    lines = [given(200, "all", -2.5), given(300, "all", -2.25), given(300, "web", float("nan"))]
    add_scores(folder, lines)
    (run,) = read(make_tuned("t", 8, f"{folder}/checkpoints/300", [])).runs
    assert (run.origin.name, run.origin.step, run.origin.quality) == ("early", 300, {"all": -2.25})


def test_where_upstream_is_gone_its_quality_is_not_known(make_tuned, make_pretrained, tmp_path):
    folder = make_pretrained("gone", {400: -2.0})
    tuned = make_tuned("t", 8, f"{folder}/checkpoints/400", [])
    copied = make_tuned("c", 8, str(tmp_path / "a_copied_checkpoint"), [])
    shutil.rmtree(folder)
    assert upstream_rows(read(tuned, copied, make_tuned("u", 0, None, []))) == [
        ("Started from", ["gone, step 400", "", ""]),
        ("Upstream neg. log perplexity [nats]", ["not known", "", ""]),
    ]


def test_without_a_common_task_each_run_has_the_value_of_its_own(make_tuned, make_pretrained):
    news, web = make_pretrained("news", {}), make_pretrained("web", {})
    add_scores(news, [given(400, "news", -2.25)])
    add_scores(web, [given(400, "web", -2.75)])
    found = read(*(make_tuned(f"t_{p.name}", 8, f"{p}/checkpoints/400", []) for p in (news, web)))
    assert upstream_rows(found)[1][1] == ["-2.250 of news", "-2.750 of web"]


def test_upstream_quality_is_compared_on_a_task_that_all_have(make_tuned, make_pretrained):
    both = make_pretrained("both", {400: -2.0})
    one = make_pretrained("one", {})
    add_scores(one, [given(400, "web", -2.75)])
    tuned = [make_tuned(f"t_{p.name}", 8, f"{p}/checkpoints/400", []) for p in (both, one)]
    found = read(*tuned)
    assert found.upstream_task == "web"
    assert upstream_rows(found)[1][1] == ["-3.000", "-2.750"]


def over_seeds(folders):
    return downstream_over_seeds(read_findings(folders)).rows


def test_numbers_over_seeds_are_mean_and_standard_deviation(make_seeds, make_tuned):
    runs = make_seeds(3)[:6]
    (runs[4] / "eval" / "metrics.jsonl").unlink()
    lines = [generated(100, "qa", average=50.0), generated(100, "nli", accuracy=0.75)]
    scratch = make_tuned("scratch", 0, None, lines)
    assert over_seeds([*runs, scratch]) == [
        ("Upstream neg. log perplexity [nats]", ["-1.875 ± 0.125", "-1.625 ± 0.125", "–"]),
        ("qa: best average [%]", ["62.00 ± 2.00", "67.00 ± 2.83, 2 of 3 seeds", "50.00"]),
        ("nli: best accuracy", ["–", "–", "0.750"]),
    ]


def test_without_seeds_or_scores_there_are_no_numbers_over_seeds(make_seeds):
    runs = make_seeds(2)
    assert over_seeds(runs[::2]) == []
    for run in runs[:2]:
        (run / "eval" / "metrics.jsonl").unlink()
    assert over_seeds(runs[:2]) == []
