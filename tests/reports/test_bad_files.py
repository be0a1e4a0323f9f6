"""A good run folder with one thing made wrong: `status` and `report` say it in a line."""

import json
import os

import pytest

from switch_jax.cli import main

STATUS = {"state": "running", "message": "", "time": 1.0, "started": 1.0, "processes": 1}
SPENT = dict.fromkeys(("step", "data", "checkpoint", "eval", "compile", "idle"), 1.0)
DEEP = "[" * 100_000 + "]" * 100_000


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


def replace(file, number, text):
    """Puts a text in place of a line of a file; number 0: of the whole file."""
    lines = file.read_text().splitlines() if number else [""]
    lines[number - 1] = text
    file.write_bytes("\n".join(lines).encode(errors="surrogateescape") + b"\n")


def status_of(run, capsys):
    """The object of `status --json`, and that the text has the same notes."""
    assert main(["status", "--json", str(run)]) in (0, 4)
    found = json.loads(capsys.readouterr().out)
    assert main(["status", str(run)]) in (0, 4)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("note: ")] == [
        f"note: {line}" for line in found["left_out"]
    ]
    return found


def notes_of_report(run, capsys):
    assert main(["report", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    return [line.removeprefix("note: ") for line in lines if line.startswith("note: ")]


NO_RECORD = ["null", "5", "[]", "{}", DEEP, "\0" * 50, '{"kind": "\udcff"}', '{"kind": "train"}']
NO_RECORD += ['{"kind": "train", "st', '{"kind": [1], "step": 20}', '{"kind": "eval", "step": 20}']
NO_RECORD += ['{"kind": "eval", "step": 20, "task": [1], "neg_log_perplexity": -1.0}']
NO_RECORD += [f'{{"kind": "train", "step": 20, "loss": {x}}}' for x in ("[1.5]", "1" * 400)]
NO_RECORD += [f'{{"kind": "train", "step": {x}}}' for x in ('"x"', "20.5", "NaN", "1" * 5000)]


def test_a_line_that_is_no_record_is_left_out(run, capsys):
    assert len(NO_RECORD) == 18
    replace(run / "metrics.jsonl", 1, "\n".join(NO_RECORD))
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"kind": "\xc3')  # half a line
    found = status_of(run, capsys)
    assert (found["step"], found["rollbacks"]) == (60, 1)
    (note,) = found["left_out"]
    assert note == (f"{run}/metrics.jsonl: 19 of 25 records left out (the first is line 1)")
    assert notes_of_report(run, capsys) == [note]


FIELDS = [("step", [1]), ("seconds", "x"), ("loss", [1.5]), ("loss", 10**400), ("spent", [1])]
FIELDS += [("router", {"encoder": router}) for router in (7, {"layers": [1], "load": [[0.5, 0.5]]})]
FIELDS += [("router", {"encoder": {"layers": [1], "sublayers": ["a"], "load": [[1], 2]}})]


@pytest.mark.parametrize(("field", "value"), FIELDS)
def test_a_field_of_another_form_is_a_line_and_never_a_trace(run, field, value, capsys):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    replace(run / "metrics.jsonl", 5, json.dumps({**json.loads(lines[4]), field: value}))
    for command in ("status", "report"):
        code = main([command, str(run)])
        printed = capsys.readouterr().err
        if code == 2:
            (line,) = printed.splitlines()
            assert line.startswith(f"switch_jax {command}: {run} ")
        else:
            assert code in (0, 4) and printed == ""


def with_routers(run, **stacks):
    """Puts statistics of these stacks into each training record."""
    for number in (1, 3, 5):
        line = json.loads((run / "metrics.jsonl").read_text().splitlines()[number - 1])
        line["router"] |= stacks
        replace(run / "metrics.jsonl", number, json.dumps(line))


WHOLE = {"layers": [1], "sublayers": ["a"], "dropped": [0.1], "entropy": [0.1]}
ROUTERS = [WHOLE, WHOLE | {"load": [0.5]}, WHOLE | {"load": [[]]}]


@pytest.mark.parametrize("router", ROUTERS)
def test_statistics_of_routers_without_a_load_for_each_expert_are_a_line(run, router, capsys):
    with_routers(run, encoder=router)
    assert main(["report", str(run)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"switch_jax report: {run} has a damaged metrics.jsonl: ")


def test_a_stack_without_sparse_layers_has_no_charts(run, capsys):
    with_routers(run, decoder=dict.fromkeys(("layers", "sublayers", *WHOLE, "load"), []))
    assert notes_of_report(run, capsys) == []
    page = (run.parent / "report.html").read_text(encoding="utf-8")
    assert "Router entropy, encoder" in page and "Router entropy, decoder" not in page


def test_planned_steps_that_are_no_number_are_a_line(run, capsys):
    (run / "run.json").write_text('{"train_steps": "many"}')
    for command in ("status", "report"):
        assert main([command, str(run)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"switch_jax {command}: {run} ")


@pytest.mark.parametrize("file", ["run.json", "status.json", "config.json"])
def test_a_damaged_file_is_left_out(run, file, capsys):
    for text in ("[]", "null", "", DEEP, "\udcff"):
        replace(run / file, 0, text)
        (note,) = notes_of_report(run, capsys)
        assert note.startswith(f"{run}/{file} is left out: ")
        if file != "config.json":
            assert status_of(run, capsys)["left_out"] == [note]


@pytest.mark.parametrize("file", ["run.json", "status.json", "metrics.jsonl", "config.json"])
def test_a_folder_or_a_pipe_in_a_files_place(run, file, capsys):
    whys = {os.mkdir: "cannot be read (Is a directory)", os.mkfifo: "is a pipe, of which a read"}
    for make, why in whys.items():
        (run / file).rmdir() if (run / file).is_dir() else (run / file).unlink()
        make(run / file)
        begin = f"{run}/{file} is left out: it {why}"
        if file != "config.json":
            (note,) = status_of(run, capsys)["left_out"]
            assert note.startswith(begin)
        if file == "metrics.jsonl":
            assert main(["report", str(run)]) == 2
            assert begin in capsys.readouterr().err
        else:
            (note,) = notes_of_report(run, capsys)
            assert note.startswith(begin)


def test_a_config_of_something_else_is_one_line(run, capsys):
    (run / "config.json").write_text('{"model_type": "t5"}')
    assert main(["report", str(run)]) == 2
    assert f"{run} has a damaged config.json: 'run'" in capsys.readouterr().err


def test_a_checkpoint_that_does_not_say_when_it_was_saved(run, capsys):
    for text in ("null", "{}", '{"commit_timestamp_nsecs": "x"}', DEEP, "\udcff", "9" * 5000):
        file = run / "checkpoints" / "40" / "_CHECKPOINT_METADATA"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode(errors="surrogateescape"))
        found = status_of(run, capsys)
        assert (found["checkpoint"], found["checkpoint_age"]) == (40, None)


def test_a_folder_with_nothing_that_fits_is_a_mistake_in_one_line(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text("5\n{}\n")
    for command in ("status", "report"):
        assert main([command, str(tmp_path)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "metrics.jsonl: 2 of 2 records left out (" in line
