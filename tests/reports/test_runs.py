import json

import numpy as np
import pytest

from switch_jax.errors import UserError
from switch_jax.reports.runs import read_run, read_runs

ROUTER = ["load", "dropped", "entropy"]


def train(step, value, seconds=None):
    return {"kind": "train", "step": step, "seconds": seconds or step, "neg_log_perplexity": value}


def evaluation(step, value, task="t"):
    return {**train(step, value), "kind": "eval", "task": task}


def write(folder, lines, tail=""):
    folder.mkdir(exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines) + tail
    (folder / "metrics.jsonl").write_text(text)
    return folder


def test_reads_everything_a_run_wrote(make_run):
    run = read_run(make_run("switch", num_experts=8, steps=200, tasks=("all", "a")))
    assert run.name == "switch" and run.sparse and not run.dense and not run.unfinished
    assert run.facts["mesh"] == {"data": 1, "expert": 2, "model": 1}
    assert "ModelConfig.num_experts = 8" in run.config
    assert list(run.train.step) == list(range(20, 201, 20))
    assert run.train.seconds[0] == pytest.approx(2.0)
    assert list(run.evals) == ["a", "all"] and list(run.evals["a"].step) == [100, 200]
    titles = [layer.title for layer in run.layers]
    assert titles == [f"{s} layer {i} (Switch)" for s in ("Encoder", "Decoder") for i in (1, 3)]
    statistics = run.layers[0].statistics
    assert list(statistics.step) == list(run.train.step)
    assert list(statistics.values) == [*ROUTER, "several_experts"]
    assert np.isnan(statistics.get("several_experts")).all()
    assert statistics.get("dropped").shape == (10,) and statistics.get("load").shape == (10, 8)
    np.testing.assert_allclose(statistics.get("load").sum(1), 1)


def test_the_share_of_tokens_with_several_experts_is_read_where_it_is_recorded(make_run):
    folder = make_run("choose", num_experts=4, steps=40)
    metrics = folder / "metrics.jsonl"
    entropy = '"entropy": ['
    metrics.write_text(
        metrics.read_text().replace(entropy, f'"several_experts": [0.25, 0.5], {entropy}')
    )
    first, second = read_run(folder).layers[:2]
    assert first.statistics.last("several_experts") == 0.25
    assert second.statistics.last("several_experts") == 0.5


def test_routers_in_attention_are_named(make_run):
    """Runs of earlier versions do not say where a router is."""
    folder = make_run(
        "both", num_experts=4, steps=40, stacks={"encoder": [1, 1], "decoder": [1, 1]}
    )
    assert [layer.title for layer in read_run(folder).layers][:1] == ["Encoder layer 1 (Switch)"]
    metrics = folder / "metrics.jsonl"
    layers, named = (
        '"layers": [1, 1]',
        '"layers": [1, 1], "sublayers": ["attention", "feed_forward"]',
    )
    metrics.write_text(metrics.read_text().replace(layers, named))
    assert [layer.title for layer in read_run(folder).layers] == [
        f"{stack} layer 1 {sublayer} (Switch)"
        for stack in ("Encoder", "Decoder")
        for sublayer in ("attention", "feed_forward")
    ]


def test_a_dense_run_has_no_router(make_run):
    run = read_run(make_run("dense", num_experts=0, steps=100))
    assert run.dense and not run.sparse and run.layers == ()


def test_of_a_repeated_step_the_later_line_wins(tmp_path):
    lines = [train(10, -5.0), train(20, -4.0), evaluation(20, -4.5)]
    again = [train(20, -3.0), evaluation(20, -3.5), train(30, -2.0)]
    run = read_run(write(tmp_path, lines + again))
    assert list(run.train.step) == [10, 20, 30]
    assert list(run.train.get("neg_log_perplexity")) == [-5.0, -3.0, -2.0]
    assert list(run.evals["t"].get("neg_log_perplexity")) == [-3.5]


@pytest.mark.parametrize("later", [[train(30, -3.0), evaluation(30, -3.5)], [evaluation(25, -3.7)]])
def test_a_resume_discards_what_the_lost_attempt_logged_past_it(tmp_path, later):
    lost = [train(10, -5.0), evaluation(15, -4.9), train(20, -4.0), *later]
    run = read_run(write(tmp_path, [*lost, train(20, -4.1)]))
    assert list(run.train.step) == [10, 20]
    assert run.last_step == 20
    assert list(run.evals["t"].step) == [15]


def test_a_rollback_discards_the_steps_given_up_that_are_not_logged_again(tmp_path):
    given_up = [train(1000, -4.0), evaluation(1000, -4.1), train(1024, -9.0)]
    given_up.append(evaluation(1024, -9.1))
    back = {"kind": "rollback", "step": 1024, "bad_steps": 11, "back_to": 1000}
    run = read_run(write(tmp_path, [*given_up, back]))
    assert list(run.train.step) == list(run.evals["t"].step) == [1000]
    run = read_run(write(tmp_path, [*given_up, back, train(1100, -3.0), evaluation(1100, -3.1)]))
    assert list(run.train.step) == list(run.evals["t"].step) == [1000, 1100]


def test_bad_steps_of_lost_attempts_count(tmp_path):
    bad = [{"kind": "skipped", "step": step, "batch": step} for step in (18, 19)]
    back = {"kind": "rollback", "step": 19, "bad_steps": 2}
    run = read_run(write(tmp_path, [train(10, -5.0), train(19, -5.0), *bad, back, train(15, -4.0)]))
    assert list(run.train.step) == [10, 15]
    assert (run.skipped_steps, run.rollbacks) == (2, 1)


@pytest.mark.parametrize("state", ["running", "finished"])
def test_a_run_that_stopped_early_is_finished(tmp_path, state):
    folder = write(tmp_path, [train(10, -5.0)])
    (folder / "run.json").write_text('{"train_steps": 20}')
    assert read_run(folder).unfinished
    (folder / "status.json").write_text(json.dumps({"state": state, "time": 0, "started": 0}))
    assert read_run(folder).unfinished == (state == "running")


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        ('{"kind": "train", "st', "it is half-written"),
        ('{"kind": "train"}', "it has no 'step'"),
        ("17", "it is 17, not an object"),
        ("\u00e9", "it is half-written"),
    ],
)
def test_a_bad_last_line_is_left_out(tmp_path, tail, reason):
    run = read_run(write(tmp_path, [train(10, -5.0)], tail))
    assert list(run.train.step) == [10]
    message = f"{tmp_path}/metrics.jsonl: 1 of 2 records left out (line 2: {reason})"
    assert run.left_out == (message,)


def test_half_a_utf8_character_at_the_end_is_skipped(tmp_path):
    path = write(tmp_path, [train(10, -5.0)]) / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"kind": "\xc3')
    assert "(line 2: it is half-written)" in read_run(tmp_path).left_out[0]


def test_nan_and_null_are_not_numbers(tmp_path):
    run = read_run(write(tmp_path, [train(10, float("nan")), train(20, None), train(30, -1.0)]))
    np.testing.assert_array_equal(run.train.get("neg_log_perplexity"), [np.nan, np.nan, -1.0])


def test_a_number_never_logged_is_nan(tmp_path):
    run = read_run(write(tmp_path, [train(10, -5.0)]))
    assert np.isnan(run.train.last("gradient_norm"))


def test_without_run_json_and_config_the_folder_gives_the_name(tmp_path):
    run = read_run(write(tmp_path / "probe", [train(10, -5.0)]))
    assert (run.name, run.facts, run.config) == ("probe", {}, "")
    assert not run.dense and not run.sparse


def test_runs_of_the_same_name_are_distinguished_by_folder(tmp_path):
    folders = [write(tmp_path / name, [train(10, -5.0)]) for name in ("a", "b")]
    for folder in folders:
        (folder / "run.json").write_text('{"name": "same"}')
    assert [run.name for run in read_runs(folders)] == [f"same ({f})" for f in folders]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="no run folder .*nowhere.*metrics.jsonl"):
        read_run(tmp_path / "nowhere")


def test_a_folder_without_metrics_lists_what_it_holds(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match=r"no metrics\.jsonl in .*holds run\.json"):
        read_run(tmp_path)


@pytest.mark.parametrize("tail", ["", '{"kind": "tr'])
def test_metrics_without_a_complete_line(tmp_path, tail):
    with pytest.raises(UserError, match="holds no complete train or eval line yet"):
        read_run(write(tmp_path, [], tail))


def test_a_broken_run_json_is_left_out(tmp_path):
    write(tmp_path, [train(10, -5.0)])
    (tmp_path / "run.json").write_text('{"name": ')
    run = read_run(tmp_path)
    assert (run.name, run.facts) == (tmp_path.name, {})
    (message,) = run.left_out
    assert message.startswith(f"{tmp_path}/run.json is left out: it is not JSON (")


def from_checkpoint(folder, checkpoint):
    (folder / "run.json").write_text(json.dumps({"initial_checkpoint": str(checkpoint)}))
    return folder


def test_the_run_that_a_run_came_from_is_read_too_and_the_one_before(tmp_path):
    first, second, third = (write(tmp_path / name, [train(1, -5.0)]) for name in "abc")
    from_checkpoint(second, first / "checkpoints" / "200")
    origin = read_run(from_checkpoint(third, second / "checkpoints" / "30")).origin
    assert (origin.name, origin.step, origin.run.folder) == ("b", 30, str(second))
    before = origin.run.origin
    assert (before.name, before.step, before.run.folder) == ("a", 200, str(first))
    assert before.run.origin is None


def test_an_origin_that_is_no_run_is_named_as_far_as_it_is_known(tmp_path):
    folder = write(tmp_path / "run", [train(1, -5.0)])
    origin = read_run(from_checkpoint(folder, "/gone/checkpoints/30")).origin
    assert (origin.name, origin.step, origin.run) == ("gone", 30, None)
    assert read_run(from_checkpoint(folder, "/x/switch_base_8_hf")).origin is None


def test_an_origin_that_was_moved_with_its_run_is_found(tmp_path):
    (tmp_path / "old").mkdir()
    pretrained, tuned = (write(tmp_path / "old" / name, [train(1, -5.0)]) for name in "ab")
    from_checkpoint(tuned, pretrained / "checkpoints" / "1")
    (tmp_path / "old").rename(tmp_path / "new")
    origin = read_run(tmp_path / "new" / "b").origin
    assert (origin.name, origin.run.folder) == ("a", str(tmp_path / "new" / "a"))


@pytest.mark.parametrize("case", ["itself", "another run of the name"])
def test_a_run_beside_it_that_is_not_its_origin_is_not_taken_for_it(tmp_path, case):
    run = write(tmp_path / "a", [train(1, -5.0)])
    if case == "another run of the name":
        write(tmp_path / "b", [train(10, -5.0)])
    name = "a" if case == "itself" else "b"
    origin = read_run(from_checkpoint(run, f"/gone/{name}/checkpoints/30")).origin
    assert (origin.name, origin.step, origin.run) == (name, 30, None)


def test_runs_that_name_each_other_as_their_origin_are_read(tmp_path):
    """The folder of the first was removed, and a run from the second was written there."""
    first, second = (write(tmp_path / name, [train(1, -5.0)]) for name in "ab")
    from_checkpoint(first, second / "checkpoints" / "20")
    from_checkpoint(second, first / "checkpoints" / "10")
    run, names = read_run(first), []
    while run is not None and run.origin is not None:
        names.append(run.origin.name)
        run = run.origin.run
    assert names == ["b", "a", "b"]
