"""A good run folder with one thing made wrong: `status` and `report` say it in a line."""

import json

import pytest

from switch_jax.cli import main
from tests.cli.mistakes import refused
from tests.reports.by_hand import write_lines

ROUTER = {"layers": [1], "sublayers": ["a"], "dropped": [0.1], "entropy": [0.1]}
ROUTER |= {"load": [[0.5, 0.5]]}


@pytest.fixture
def run(make_run, no_charts):
    """Three training records, and three evaluations after them, by turns."""
    options = {"layers": [1], "train_every": 20, "eval_every": 20}
    return make_run("run", num_experts=2, steps=60, tasks=("all",), **options)


def test_what_is_left_out_is_noted_in_each_form(run, capsys):
    """Which lines and files are: tests/run_folder/test_readers.py."""
    _, rest = (run / "metrics.jsonl").read_text().split("\n", 1)
    (run / "metrics.jsonl").write_text(f"null\n5\n{rest}")
    (run / "status.json").write_text("[]")
    notes = [f"{run}/status.json is left out: it is damaged"]
    notes += [f"{run}/metrics.jsonl: 2 of 7 records left out (the first is line 1)"]
    assert main(["status", "--json", str(run)]) in (0, 4)
    found = json.loads(capsys.readouterr().out)
    assert (found["step"], found["left_out"]) == (60, notes)
    for command in ("status", "report"):
        assert main([command, str(run)]) in (0, 4)
        lines = capsys.readouterr().out.splitlines()
        told = [line.removeprefix("note: ") for line in lines if line.startswith("note: ")]
        assert sorted(told) == sorted(notes)


def with_routers(run, **stacks):
    """Puts these statistics into each training record."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    write_lines(run, [{**x, "router": stacks} if x["kind"] == "train" else x for x in lines])


@pytest.mark.parametrize("router", [7, {"layers": [1]}, ROUTER | {"load": [[]]}])
def test_damaged_statistics_of_routers_are_a_line(run, router, capsys):
    with_routers(run, encoder=router)
    line = refused(capsys, "report", run)
    assert line.startswith(f"switch_jax report: {run} has a damaged metrics.jsonl: ")


def test_a_stack_without_sparse_layers_has_no_charts(run, capsys):
    with_routers(run, encoder=ROUTER, decoder=dict.fromkeys(ROUTER, []))
    assert main(["report", str(run)]) == 0
    assert "note: " not in capsys.readouterr().out
    page = (run.parent / "report.html").read_text(encoding="utf-8")
    assert "Router entropy, encoder" in page and "Router entropy, decoder" not in page


@pytest.mark.parametrize(
    ("commands", "file", "text", "told"),
    [
        ("status report", "run.json", '{"train_steps": "many"}', ""),
        ("report", "config.json", '{"model_type": "t5"}', "has a damaged config.json: 'run'"),
        ("status report", "metrics.jsonl", "5\n{}\n", "2 of 2 records left out ("),
    ],
)
def test_a_file_of_something_else_is_a_mistake_in_one_line(
    tmp_path, run, commands, file, text, told, capsys
):
    folder = tmp_path if file == "metrics.jsonl" else run  # there it is all there is
    (folder / file).write_text(text)
    for command in commands.split():
        line = refused(capsys, command, folder)
        assert line.startswith(f"switch_jax {command}: {folder} ") and told in line
