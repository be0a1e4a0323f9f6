"""A good run folder with one thing made wrong: `status` and `report` say it in a line."""

import contextlib
import copy
import functools
import itertools
import json

import pytest

from switch_jax.cli import main
from switch_jax.reports import page, run_status
from switch_jax.reports.findings import read_findings
from switch_jax.reports.run_status import read_status
from switch_jax.reports.table import text_lines
from tests.cli.mistakes import refused
from tests.reports.by_hand import write_lines
from tests.run_folder.documented import problems, table_of, tables

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


def left_out(run):
    """What is said to be left out, after all that `status` and `report` make of the run."""
    status, findings = read_status(run), read_findings([str(run)])
    assert run_status.page(status) and run_status.table([status]) and text_lines(findings)
    assert list(page.sections(findings))[:2] == ["Held-out quality", "Training curves"]
    assert status.step == findings.runs[0].last_step == 60, "the rest is there"
    assert sorted(status.left_out) == sorted(findings.notes)
    return status.left_out


WRONG = ("many", True, 10**400, [1.5], {"a": "b"})


def each_made_wrong(record, table):
    """The record with each documented field, such as `router.encoder.load`, of another type."""
    for field, value in itertools.product(table, WRONG):
        wrong = copy.deepcopy(record)
        *parents, name = field.split(".")
        with contextlib.suppress(KeyError):  # of the statistics that this kind or run has not
            functools.reduce(dict.__getitem__, parents, wrong)[name] = value
        if problems(wrong, table):
            yield wrong


@pytest.mark.parametrize("kind", ["train", "eval", "skipped", "rollback"])
def test_a_record_with_one_field_of_another_type_is_one_line(run, kind):
    lines = list(map(json.loads, (run / "metrics.jsonl").read_text().splitlines()))
    lines += [{"kind": "skipped", "step": 60, "batch": 60}]
    lines += [{"kind": "rollback", "step": 60, "bad_steps": 9, "back_to": 60}]
    good = [line for line in lines if line["kind"] == kind][-1]
    line = f"{run}/metrics.jsonl: 1 of 9 records left out (the first is line 9)"
    found = []
    for wrong in each_made_wrong(good, table_of(kind)):
        write_lines(run, [*lines, wrong])
        found.append(left_out(run))
    assert [line] in found and all(notes in ([], [line]) for notes in found)


@pytest.mark.parametrize("file", ["run.json", "status.json"])
def test_a_file_with_one_field_of_another_type_is_one_line(run, file):
    content = json.loads((run / "run.json").read_text())
    if file == "status.json":
        content = {"state": "running", "message": "", "time": 1.0, "started": 1.0, "processes": 1}
    found = []
    for wrong in each_made_wrong(content, tables()[file]):
        (run / file).write_text(json.dumps(wrong))
        found += left_out(run)
    assert found and all(note.startswith(f"{run}/{file} is left out: its field ") for note in found)


def with_routers(run, **stacks):
    """Puts these statistics into each training record."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    write_lines(run, [{**x, "router": stacks} if x["kind"] == "train" else x for x in lines])


def test_a_record_with_routers_of_another_shape_loses_them(run):
    lines = list(map(json.loads, (run / "metrics.jsonl").read_text().splitlines()))
    lines[0]["router"]["encoder"]["load"] = [[0.25, 0.25, 0.5]]
    write_lines(run, lines)
    findings = read_findings([str(run)])
    found = "the routers of 1 of 3 records are of another shape, and left out"
    assert findings.notes == [f"{run}/metrics.jsonl: {found}"]
    (router,) = findings.runs[0].routers["encoder"].values()
    assert list(router.step) == [40, 60] and len(findings.runs[0].train.step) == 3


def test_a_stack_without_sparse_layers_has_no_charts(run, capsys):
    with_routers(run, encoder=ROUTER, decoder=dict.fromkeys(ROUTER, []))
    assert main(["report", str(run)]) == 0
    assert "note: " not in capsys.readouterr().out
    page = (run.parent / "report.html").read_text(encoding="utf-8")
    assert "Router entropy, encoder" in page and "Router entropy, decoder" not in page


@pytest.mark.parametrize(
    ("commands", "file", "text", "told"),
    [
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
