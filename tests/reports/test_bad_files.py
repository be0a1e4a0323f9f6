"""A good run folder with one thing made wrong: `status` and `report` say it in a line."""

import json

import pytest

from switch_jax.cli import main
from tests.cli.mistakes import refused

STATUS = {"state": "running", "message": "", "time": 1.0, "started": 1.0, "processes": 1}
SPENT = dict.fromkeys(("step", "data", "checkpoint", "eval", "compile", "idle"), 1.0)


@pytest.fixture
def run(make_run, monkeypatch, tmp_path, no_charts):
    """Lines 1 to 6 of metrics.jsonl are train, eval, train, eval, ...; line 7 is a rollback."""
    options = {"layers": [1], "train_every": 20, "eval_every": 20}
    folder = make_run("run", num_experts=2, steps=60, tasks=("all",), **options)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines[::2]:
        line |= {"spent": SPENT, "goodput": 0.5, "skipped_steps": 0}
    lines.append({"kind": "rollback", "step": 60, "back_to": 60})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "status.json").write_text(json.dumps(STATUS))
    return folder


def replace(run, number, text):
    """Puts a text in place of a line of metrics.jsonl."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    lines[number - 1] = text
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def test_what_is_left_out_is_noted_in_each_form(run, capsys):
    """Which lines and files are: tests/run_folder/test_readers.py."""
    replace(run, 1, "null\n5")
    (run / "status.json").write_text("[]")
    notes = [f"{run}/status.json is left out: it is damaged"]
    notes += [f"{run}/metrics.jsonl: 2 of 8 records left out (the first is line 1)"]
    assert main(["status", "--json", str(run)]) in (0, 4)
    found = json.loads(capsys.readouterr().out)
    assert (found["step"], found["rollbacks"], found["left_out"]) == (60, 1, notes)
    for command in ("status", "report"):
        assert main([command, str(run)]) in (0, 4)
        lines = capsys.readouterr().out.splitlines()
        told = [line.removeprefix("note: ") for line in lines if line.startswith("note: ")]
        assert sorted(told) == sorted(notes)


def with_field(run, field, value):
    """Puts the value into each training record."""
    for number in (1, 3, 5):
        line = json.loads((run / "metrics.jsonl").read_text().splitlines()[number - 1])
        replace(run, number, json.dumps({**line, field: value}))


@pytest.mark.parametrize(("field", "value"), [("seconds", "x"), ("spent", [1])])
def test_a_field_of_another_form_is_a_line_and_never_a_trace(run, field, value, capsys):
    with_field(run, field, value)
    for command in ("status", "report"):
        code = main([command, str(run)])
        printed = capsys.readouterr().err
        if code == 2:
            (line,) = printed.splitlines()
            assert line.startswith(f"switch_jax {command}: {run} ")
        else:
            assert code in (0, 4) and printed == ""


WHOLE = {
    "layers": [1],
    "sublayers": ["a"],
    "dropped": [0.1],
    "entropy": [0.1],
    "load": [[0.5, 0.5]],
}


@pytest.mark.parametrize(
    "router", [7, {"layers": [1]}, WHOLE | {"load": [0.5]}, WHOLE | {"load": [[]]}]
)
def test_damaged_statistics_of_routers_are_a_line(run, router, capsys):
    with_field(run, "router", {"encoder": router})
    line = refused(capsys, "report", run)
    assert line.startswith(f"switch_jax report: {run} has a damaged metrics.jsonl: ")


def test_a_stack_without_sparse_layers_has_no_charts(run, capsys):
    none = dict.fromkeys(WHOLE, [])
    with_field(run, "router", {"encoder": WHOLE, "decoder": none})
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
