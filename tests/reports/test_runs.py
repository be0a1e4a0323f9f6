import json

import numpy as np
import pytest

from switch_jax.reports.runs import read_run, read_runs, with_distinct_names
from tests.reports.by_hand import write_lines


def train(step, value, seconds=None):
    return {"kind": "train", "step": step, "seconds": seconds or step, "neg_log_perplexity": value}


def evaluation(step, value, task="t"):
    return {**train(step, value), "kind": "eval", "task": task}


def test_reads_everything_a_run_wrote(make_run):
    run = read_run(make_run("switch", num_experts=8, steps=200, tasks=("all", "a")))
    assert run.name == "switch" and run.sparse and not run.dense and not run.unfinished
    assert run.facts["mesh"] == {"data": 1, "expert": 2, "model": 1}
    assert run.settings["NUM_EXPERTS"] == 8 and "MODEL_DIR" not in run.settings
    assert list(run.train.step) == list(range(20, 201, 20))
    assert run.train.seconds[0] == pytest.approx(2.0)
    assert list(run.evals) == ["a", "all"] and list(run.evals["a"].step) == [100, 200]
    layers = {stack: list(found) for stack, found in run.routers.items()}
    assert layers == dict.fromkeys(("encoder", "decoder"), ["layer 1", "layer 3"])
    router = run.routers["encoder"]["layer 1"]
    assert list(router.step) == list(run.train.step)
    assert router.get("dropped").shape == (10,) and router.get("load").shape == (10, 8)
    np.testing.assert_allclose(router.get("load").sum(1), 1)
    assert np.isnan(router.get("several_experts")).all()


def test_routers_in_attention_are_named_and_have_what_is_recorded_of_some(tmp_path):
    router = {
        "layers": [1, 1],
        "sublayers": ["attention", "feed_forward"],
        "load": [[0.25, 0.75], [0.5, 0.5]],
        "dropped": [0.1, 0.2],
        "entropy": [0.3, 0.4],
        "several_experts": [0.25, 0.5],
    }
    run = read_run(write_lines(tmp_path, [{**train(10, -5.0), "router": {"encoder": router}}]))
    assert list(run.routers["encoder"]) == ["layer 1 attention", "layer 1 feed_forward"]
    first, second = run.routers["encoder"].values()
    assert first.get("load").tolist() == [[0.25, 0.75]] and second.last("dropped") == 0.2
    assert [r.last("several_experts") for r in (first, second)] == [0.25, 0.5]


def test_metrics_of_generated_text_stand_beside_those_of_given_text(tmp_path):
    lines = [
        {**evaluation(10, -5.0), "accuracy": 0.5, "generated": {"accuracy": 46.88, "em": None}},
        {**evaluation(20, -4.0), "accuracy": 0.75, "generated": {"accuracy": 50.0, "em": 2.0}},
    ]
    curve = read_run(write_lines(tmp_path, lines)).evals["t"]
    assert curve.get("accuracy").tolist() == [0.5, 0.75]
    assert curve.get("generated_accuracy").tolist() == [46.88, 50.0]
    np.testing.assert_array_equal(curve.get("generated_em"), [np.nan, 2.0])


def test_of_a_repeated_step_the_later_line_wins(tmp_path):
    lines = [train(10, -5.0), train(20, -4.0), evaluation(20, -4.5)]
    again = [train(20, -3.0), evaluation(20, -3.5), train(30, -2.0)]
    run = read_run(write_lines(tmp_path / "probe", lines + again))
    assert (run.name, run.facts, run.settings, run.routers) == ("probe", {}, {}, {})
    assert not run.dense and not run.sparse
    assert list(run.train.step) == [10, 20, 30]
    assert list(run.train.get("neg_log_perplexity")) == [-5.0, -3.0, -2.0]
    assert list(run.evals["t"].get("neg_log_perplexity")) == [-3.5]


@pytest.mark.parametrize("later", [[train(30, -3.0), evaluation(30, -3.5)], [evaluation(25, -3.7)]])
def test_a_resume_discards_what_the_lost_attempt_logged_past_it(tmp_path, later):
    lost = [train(10, -5.0), evaluation(15, -4.9), train(20, -4.0), *later]
    run = read_run(write_lines(tmp_path, [*lost, train(20, -4.1)]))
    assert list(run.train.step) == [10, 20]
    assert run.last_step == 20
    assert list(run.evals["t"].step) == [15]


def test_a_rollback_discards_the_steps_given_up_that_are_not_logged_again(tmp_path):
    given_up = [train(1000, -4.0), evaluation(1000, -4.1), train(1024, -9.0)]
    given_up += [evaluation(1024, -9.1), {"kind": "skipped", "step": 1018, "batch": 1018}]
    back = {"kind": "rollback", "step": 1024, "bad_steps": 11, "back_to": 1000}
    run = read_run(write_lines(tmp_path, [*given_up, back]))
    assert list(run.train.step) == list(run.evals["t"].step) == [1000]
    assert run.skipped_steps == 1
    run = read_run(
        write_lines(tmp_path, [*given_up, back, train(1100, -3.0), evaluation(1100, -3.1)])
    )
    assert list(run.train.step) == list(run.evals["t"].step) == [1000, 1100]


@pytest.mark.parametrize("state", ["running", "finished"])
def test_a_run_that_stopped_early_is_finished(tmp_path, state):
    folder = write_lines(tmp_path, [train(10, -5.0)])
    (folder / "run.json").write_text('{"train_steps": 20}')
    assert read_run(folder).unfinished
    (folder / "status.json").write_text(json.dumps({"state": state, "time": 0, "started": 0}))
    assert read_run(folder).unfinished == (state == "running")


def test_what_is_no_number_or_too_large_to_draw_is_nan(tmp_path):
    values = [float("nan"), None, float("inf"), 1e300, -1.0]
    run = read_run(write_lines(tmp_path, [train(10 * (i + 1), x) for i, x in enumerate(values)]))
    np.testing.assert_array_equal(run.train.get("neg_log_perplexity"), [np.nan] * 4 + [-1.0])
    assert np.isnan(run.train.last("gradient_norm"))


def test_runs_of_the_same_name_are_distinguished_by_folder(tmp_path):
    folders = [write_lines(tmp_path / name, [train(10, -5.0)]) for name in ("a", "b")]
    for folder in folders:
        (folder / "run.json").write_text('{"name": "same"}')
    runs, _ = read_runs(folders)
    assert [run.name for run in with_distinct_names(runs)] == [f"same ({f})" for f in folders]
