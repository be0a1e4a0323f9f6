import dataclasses
import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest

from switch_jax.reports.comparison import compare
from switch_jax.reports.configurations import group_runs
from switch_jax.reports.findings import Findings, read_findings
from switch_jax.reports.pictures import sections
from switch_jax.reports.runs import read_run, read_runs
from switch_jax.reports.tables import downstream_numbers, final_numbers
from tests.reports.by_hand import series

SCRIPT = str(Path(__file__).parents[2] / "benchmarks/thin_records.py")
FUNCTIONS = runpy.run_path(SCRIPT)


def thin(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [SCRIPT, *map(str, arguments)])
    runpy.run_path(SCRIPT, run_name="__main__")


@pytest.fixture
def study(tmp_path, write_run):
    """A dense run, and a sparse one with two seeds, in folders with configs as gin writes them."""
    folders = []
    for name, experts, seed in (("dense", 0, 0), ("switch_0", 8, 0), ("switch_1", 8, 1)):
        folder = write_run(tmp_path / "runs" / name, num_experts=experts, steps=4000)
        facts = json.loads((folder / "run.json").read_text())
        facts |= {"seed": seed, "initial_checkpoint": None}
        (folder / "run.json").write_text(json.dumps(facts))
        (folder / "config.gin").write_text(
            f"MODEL_DIR = \\\n    '{folder}'\nRANDOM_SEED = {seed}\nVOCABULARY = '/data/v.model'\n"
        )
        folders.append(folder)
    return folders


def test_a_thinned_run_is_small_and_has_the_same_held_out_values(study, tmp_path, monkeypatch):
    with (study[1] / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "skipped", "step": 70, "batch": 71}\n')
    thin(monkeypatch, *study, tmp_path / "results")
    for folder in study:
        target = tmp_path / "results" / folder.name
        assert sum(file.stat().st_size for file in target.iterdir()) < 60_000
        before, after = read_run(folder), read_run(target)
        assert after.left_out == ()
        assert after.skipped_steps == before.skipped_steps == int(folder == study[1])
        assert {key: x for key, x in before.facts.items()} == after.facts
        (task,) = before.evals
        for name in ("step", "seconds", "neg_log_perplexity", "accuracy"):
            expected = before.evals[task].get(name)
            assert after.evals[task].get(name) == pytest.approx(expected, rel=1e-5)
        assert 50 <= len(after.train) <= 60
        assert after.train.step[-1] == before.train.step[-1]
        assert len(after.layers) == len(before.layers)
        if before.layers:
            loads = [run.layers[0].statistics.get("load") for run in (before, after)]
            assert 8 <= len(loads[1]) <= 10
            assert loads[1][-1] == pytest.approx(loads[0][-1], rel=1e-5)


def test_downstream_charts_can_be_drawn_again(make_tunings, tmp_path, monkeypatch):
    tuned = [Path(folder) for folder in make_tunings()]
    before = read_findings(tuned)
    numbers = downstream_numbers(before).rows
    pretrained = {Path(run.origin.run.folder) for run in before.runs}
    thin(monkeypatch, *tuned, *pretrained, tmp_path / "results")
    for folder in (*tuned, *pretrained):
        shutil.rmtree(folder)
    after = read_findings([tmp_path / "results" / folder.name for folder in tuned])
    assert before.measures and after.measures == before.measures
    assert downstream_numbers(after).rows == numbers


def test_time_can_be_counted_anew(study, tmp_path, monkeypatch):
    thin(monkeypatch, "--step_ms=250", study[1], tmp_path / "results")
    run = read_run(tmp_path / "results" / study[1].name)
    (task,) = run.evals
    for numbers in (run.train, run.evals[task]):
        assert numbers.seconds.tolist() == [step / 4 for step in numbers.step]
    assert read_run(study[1]).facts | {"step_ms": 250} == run.facts
    # What the slowed machine did is in no record, and so in no chart and no table.
    slowed = {"tokens_per_second", "tokens_per_second_per_chip", "goodput"}
    assert not slowed & {*run.train.values}
    findings = read_findings([run.folder])
    (note,) = findings.notes
    assert note.endswith("the milliseconds of a step, which were measured apart: switch_0 250")
    shown = [chart.title for section in sections(findings) for chart in section.charts]
    assert "Training loss" in shown and "Throughput" not in shown
    assert not [row for row, _ in final_numbers(findings).rows if "Throughput" in row]


def test_without_it_the_time_is_that_of_the_records(study, tmp_path, monkeypatch):
    thin(monkeypatch, study[1], tmp_path / "results")
    run = read_run(tmp_path / "results" / study[1].name)
    assert "step_ms" not in run.facts and "tokens_per_second" in run.train.values
    assert read_findings([run.folder]).notes == []
    other = dataclasses.replace(run, train=series([(1, -4.0)]), folder="other", config="")
    both = final_numbers(Findings(group_runs([run, other])))
    (cells,) = [cells for row, cells in both.rows if "Throughput" in row]
    assert cells[0] != "" and cells[1] == ""


def test_thinned_runs_are_compared_and_grouped_as_before(study, tmp_path, monkeypatch):
    thin(monkeypatch, *study, tmp_path / "results")
    targets = sorted((tmp_path / "results").iterdir())
    assert [len(c.runs) for c in group_runs(read_runs(targets))] == [1, 2]
    task = "facts_span_corruption"
    before, after = (compare(*map(read_run, pair[:2]), task) for pair in (study, targets))
    assert after.step_speedup == pytest.approx(before.step_speedup, rel=1e-4)


def test_no_path_of_the_machine_remains(study, tmp_path, monkeypatch):
    thin(monkeypatch, *study, tmp_path / "results")
    texts = [path.read_text() for path in (tmp_path / "results").rglob("*.*") if path.is_file()]
    assert len(texts) == 9
    assert not [text for text in texts if str(tmp_path) in text or "/data" in text]
    config = (tmp_path / "results/dense/config.gin").read_text()
    assert "'dense'" in config and "VOCABULARY = 'v.model'" in config


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("A = '/data/runs/dense'", "A = 'dense'"),
        ("A = '/dense'", "A = 'dense'"),
        ("A = '~/runs/dense/'", "A = 'dense'"),
        ("A = 'gs://bucket/runs/dense'", "A = 'dense'"),
        ('{"a": "/data/dense/checkpoints/300"}', '{"a": "dense/checkpoints/300"}'),
        ("A = {'a': '/x/y', 'b': 'c/d'}", "A = {'a': 'y', 'b': 'c/d'}"),
        ("A = 'runs/dense'", "A = 'runs/dense'"),
        ("A = 1 / 2  # it's 'a' / 'b'", "A = 1 / 2  # it's 'a' / 'b'"),
    ],
)
def test_paths_keep_the_name_of_a_run_or_file(before, after):
    assert FUNCTIONS["without_folders"](before) == after


def test_skipped_steps_of_records_left_out_are_counted():
    train = [{"kind": "train", "step": i, "skipped_steps": 1, "norms": {}} for i in range(1, 151)]
    kept = sorted(FUNCTIONS["thinned"](train), key=lambda record: record["step"])
    assert [record["step"] for record in kept] == list(range(3, 151, 3))
    assert [record["skipped_steps"] for record in kept] == [3] * 50
    assert all("norms" not in record for record in kept)


def test_numbers_have_six_digits():
    value = {"a": [0.123456789, 3], "b": 1234567.8, "c": None, "d": True}
    assert FUNCTIONS["rounded"](value) == {"a": [0.123457, 3], "b": 1234570.0, "c": None, "d": True}


@pytest.mark.parametrize("case", ["itself", "same name", "nothing"])
def test_mistakes_are_told_in_a_line(study, tmp_path, monkeypatch, capsys, case):
    arguments, message = {
        "itself": ([study[0], study[0].parent], "would overwrite itself"),
        "same name": ([study[0], study[0], tmp_path / "out"], "the same folder name"),
        "nothing": ([tmp_path, tmp_path / "out"], "holds no train or eval record"),
    }[case]
    with pytest.raises(SystemExit) as error:
        thin(monkeypatch, *arguments)
    assert error.value.code == 2 and message in capsys.readouterr().err


def test_a_run_without_training_records_is_thinned_to_none():
    assert FUNCTIONS["thinned"]([]) == []
