"""A good run folder with one thing made wrong: `status` and `report` say it, and show the rest."""

import json

import pytest
from markupsafe import escape

from switch_jax.cli import main
from tests.reports.evaluated import add_scores, generated, given

STATUS = {"state": "running", "message": "", "time": 1.0, "started": 1.0, "processes": 1}
SPENT = dict.fromkeys(("step", "data", "checkpoint", "eval", "compile", "idle"), 1.0)


@pytest.fixture(scope="module")
def good(tmp_path_factory, write_run):
    """Lines 1 to 6 of metrics.jsonl are train, eval, train, eval, ...; line 7 is a rollback."""
    folder = write_run(
        tmp_path_factory.mktemp("good") / "run",
        num_experts=2,
        steps=60,
        train_every=20,
        eval_every=20,
        tasks=("all",),
        stacks={"encoder": [1], "decoder": [1]},
    )
    lines = read_lines(folder / "metrics.jsonl")
    for line in lines[::2]:
        line |= {"spent": SPENT, "goodput": 0.5, "skipped_steps": 0}
    write_lines(folder / "metrics.jsonl", [*lines, {"kind": "rollback", "step": 60}])
    add_scores(
        folder, [generated(20, "qa", em=1.0), generated(40, "qa", em=2.0), given(40, "t", 1)]
    )
    (folder / "status.json").write_text(json.dumps(STATUS))
    return folder


@pytest.fixture
def run(good, tmp_path, monkeypatch, no_charts):
    """A copy of it."""
    folder = tmp_path / "run"
    (folder / "eval").mkdir(parents=True)
    for file in good.rglob("*.*"):
        (folder / file.relative_to(good)).write_bytes(file.read_bytes())

    monkeypatch.chdir(tmp_path)
    return folder


def read_lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def write_lines(file, lines):
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def change(file, number, path, text):
    """Puts JSON, or what is none, in place of a field of a line; number 0: of the whole file.

    Args:
      file: which.
      number: of the line, from 1.
      path: names of fields, with full stops between; "" is the line.
      text: what is put there; None: the field goes.
    """
    lines = file.read_text().splitlines() if number else [file.read_text()]
    if path:
        record = place = json.loads(lines[number - 1])
        *above, last = path.split(".")
        for key in above:
            place = place[key]
        place[last] = "HERE"
        if text is None:
            del place[last]
        text = json.dumps(record).replace('"HERE"', text or "")
    lines[number - 1] = text
    file.write_bytes("\n".join(lines).encode(errors="surrogateescape") + b"\n")


def printed(arguments, capsys, codes):
    """What a command prints: its notes, and the other lines."""
    assert main(arguments) in codes
    lines = capsys.readouterr().out.splitlines()
    notes = [line.removeprefix("note: ") for line in lines if line.startswith("note: ")]
    return notes, [line for line in lines if not line.startswith("note: ")]


def status_of(run, capsys):
    """The object of `status --json`, and that the text says the same."""
    _, (line,) = printed(["status", "--json", str(run)], capsys, (0, 4))
    found = json.loads(line)
    notes, lines = printed(["status", str(run)], capsys, (0, 4))
    assert notes == found["left_out"] and len(lines) == 9
    return found


def report_of(run, capsys):
    """The notes of `report`, and its page."""
    notes, _ = printed(["report", str(run), "--output=report.html"], capsys, (0,))
    html = (run.parent / "report.html").read_text(encoding="utf-8")
    assert "Held-out quality against steps" in html and "Training curves" in html
    return notes, html


DEEP = "[" * 100_000 + "]" * 100_000
TIMES = "not a number from 0 to 1e+11"
SHAPE = (
    "router.{} has 1 layers, but load, dropped, entropy and sublayers of {}, and rows of load of "
    "{} experts"
)
MOST = "most records decoder [1] x 2; encoder [1] x 2"


@pytest.mark.parametrize(
    ("number", "path", "text", "reason"),
    [
        (1, "", "null", "it is null, not an object"),
        (1, "", "5", "it is 5, not an object"),
        (1, "", "[]", "it is [], not an object"),
        (1, "", "{}", "it has no 'kind'"),
        (1, "", DEEP, "it is nested too deeply"),
        (1, "", '{"kind": "\udcff"}', "it is not UTF-8"),
        (1, "", "\0" * 50, "it is not JSON (Expecting value: line 1 column 1 (char 0))"),
        (1, "", '{"kind": "train", "st', "it is not JSON (Unterminated string"),
        (1, "kind", "[1]", "kind is [1], not text"),
        (1, "step", None, "it has no 'step'"),
        (1, "step", '"x"', "step is 'x', not a whole number"),
        (1, "step", "true", "step is True, not a whole number"),
        (1, "step", "20.5", "step is 20.5, not a whole number"),
        (1, "step", "NaN", "step is nan, not a whole number"),
        (1, "step", "Infinity", "step is inf, not a whole number"),
        (1, "step", "-20", "step is -20, not from 0 to 10^15"),
        (1, "step", "1" + "0" * 30, "step is 1000000000000000000000000000000, not from 0 to 10^15"),
        (1, "step", "1" * 5000, "it holds a number of too many digits"),
        (1, "seconds", '"x"', f"seconds is 'x', {TIMES}"),
        (1, "seconds", "1e300", f"seconds is 1e+300, {TIMES}"),
        (1, "loss", '"1.5"', "loss is '1.5', not a number"),
        (1, "loss", "[1.5]", "loss is [1.5], not a number"),
        (1, "loss", "1e300", "loss is 1e+300, beyond 3.5e+38, the most that is read"),
        (1, "accuracy", "1" + "0" * 400, "beyond 3.5e+38, the most that is read"),
        (1, "skipped_steps", "-1", "skipped_steps is -1, not from 0 to 10^15"),
        (1, "spent", "[1]", "spent is [1], not an object"),
        (1, "spent.step", "null", f"spent.step is null, {TIMES}"),
        (1, "router", "[]", "router is [], not an object"),
        (1, "router.encoder", "7", "router.encoder is 7, not an object"),
        (1, "router.encoder.load", None, "router.encoder has no 'load'"),
        (1, "router.encoder.load", "[0.5, 0.5]", "router.encoder.load[0] is 0.5, not a list"),
        (1, "router.encoder.load", "[[1, 0], [1, 0]]", SHAPE.format("encoder", "2, 1, 1 and 1", 2)),
        (
            1,
            "router.encoder.sublayers",
            '["attention", "feed_forward"]',
            SHAPE.format("encoder", "1, 1, 1 and 2", 2),
        ),
        (1, "router.decoder.load", "[[]]", SHAPE.format("decoder", "1, 1, 1 and 1", 0)),
        (1, "router.encoder.load", "[[0, 0, 1]]", f"decoder [1] x 2; encoder [1] x 3, and {MOST}"),
        (
            1,
            "router.encoder.layers",
            '["a"]',
            "router.encoder.layers[0] is 'a', not a whole number",
        ),
        (1, "router.encoder.dropped", "0.5", "router.encoder.dropped is 0.5, not a list"),
        (2, "task", "null", "task is null, not text"),
        (2, "task", '["a"]', "task is ['a'], not text"),
        (2, "task", '"' + "y" * 9999 + '"', "text of 9999 characters, above 2000"),
        (2, "neg_log_perplexity", None, "it has no 'neg_log_perplexity'"),
        (2, "neg_log_perplexity", "{}", "neg_log_perplexity is {}, not a number"),
        (7, "step", "null", "step is null, not a whole number"),
    ],
)
def test_a_bad_record_of_training_is_left_out(run, number, path, text, reason, capsys):
    change(run / "metrics.jsonl", number, path, text)
    found = status_of(run, capsys)
    assert (found["step"], found["rollbacks"]) == (60, int(number != 7))
    (note,) = found["left_out"]
    assert note.startswith(f"{run}/metrics.jsonl: 1 of 7 records left out (line {number}: ")
    assert reason in note and len(note) < len(str(run)) + 200
    notes, html = report_of(run, capsys)
    assert notes == [note] and escape(note) in html


@pytest.mark.parametrize(
    ("number", "path", "text", "reason"),
    [
        (1, "split", None, "it has no 'split'"),
        (1, "decoding", "null", "decoding is null, not text"),
        (1, "task", "[]", "task is [], not text"),
        (1, "max_examples", '"3"', "max_examples is '3', not a whole number"),
        (1, "metrics", None, "it has no 'metrics'"),
        (1, "metrics", "{}", "metrics is empty"),
        (1, "metrics", "[1]", "metrics is [1], not an object"),
        (1, "metrics.em", '"good"', "metrics.em is 'good', not a number"),
        (1, "metrics.em", "[[1]]", "metrics.em is [[1]], not a number"),
        (1, "step", "1e30", "step is 1e+30, not a whole number"),
        (3, "metrics", '{"accuracy": 1}', "metrics has no 'neg_log_perplexity'"),
        (3, "max_examples", None, "it has no 'max_examples'"),
    ],
)
def test_a_bad_record_of_evaluation_is_left_out(run, number, path, text, reason, capsys):
    change(run / "eval" / "metrics.jsonl", number, path, text)
    change(run / "run.json", 0, "initial_checkpoint", f'"{run}/checkpoints/40"')
    begin = f"{run}/eval/metrics.jsonl: 1 of 3 records left out"
    notes, html = report_of(run, capsys)
    assert notes == [f"{begin} (line {number}: {reason})"]
    assert "<td>2.00 % at step 40</td>" in html


@pytest.mark.parametrize(
    ("file", "path", "text", "reason"),
    [
        ("run.json", "", "[]", " is left out: it is [], not an object"),
        ("run.json", "", "null", " is left out: it is null, not an object"),
        ("run.json", "", DEEP, " is left out: it is nested too deeply"),
        ("run.json", "", "\udcff", " is left out: it is not UTF-8"),
        ("run.json", "train_steps", '"many"', "train_steps is 'many', not a whole number"),
        ("run.json", "train_steps", "Infinity", "train_steps is inf, not a whole number"),
        ("run.json", "num_experts", "[2]", "num_experts is [2], not a whole number"),
        ("run.json", "name", '{"a": 1}', "name is {'a': 1}, not text"),
        ("run.json", "initial_checkpoint", "5", "initial_checkpoint is 5, not text"),
        ("run.json", "corpus", "9" * 400, "beyond 3.5e+38, the most that is read"),
        ("run.json", "corpus", "[[[[[1]]]]]", "corpus[0][0][0] is nested too deeply"),
        ("status.json", "", "5", " is left out: it is 5, not an object"),
        ("status.json", "", "", " is left out: it is not JSON (Expecting value"),
        ("status.json", "state", "null", "state is null, none of starting, running, finished"),
        ("status.json", "state", '["failed"]', "state is ['failed'], none of starting"),
        ("status.json", "message", "[]", "message is [], not text"),
        ("status.json", "time", '"now"', f"time is 'now', {TIMES}"),
        ("status.json", "started", "1e400", f"started is inf, {TIMES}"),
    ],
)
def test_what_does_not_fit_of_other_files_is_left_out(run, file, path, text, reason, capsys):
    change(run / file, 0, path, text)
    found = status_of(run, capsys)
    (note,) = found["left_out"]
    assert note.startswith(f"{run}/{file}") and reason in note
    if path:
        assert " fields left out (" in note
    notes, _ = report_of(run, capsys)
    assert notes == [note]


@pytest.mark.parametrize("file", ["run.json", "status.json", "metrics.jsonl", "config.gin"])
def test_a_folder_in_a_files_place(run, file, capsys):
    (run / file).unlink()
    (run / file).mkdir()
    note = f"{run}/{file} is left out: it cannot be read (Is a directory)"
    if file != "config.gin":
        assert status_of(run, capsys)["left_out"] == [note]
    if file == "metrics.jsonl":
        assert main(["report", str(run)]) == 2
        assert note in capsys.readouterr().err
    else:
        assert report_of(run, capsys)[0] == [note]


def test_a_config_that_is_not_utf8_is_shown_as_far_as_it_is(run, capsys):
    (run / "config.gin").write_bytes(b"NAME = '\xe9t\xe9'\nSTEPS = 5\0\n")
    notes, html = report_of(run, capsys)
    assert notes == [f"{run}/config.gin is not UTF-8 at byte 8: shown as far as it is"]
    assert escape("NAME = '\ufffdt\ufffd'\nSTEPS = 5\ufffd\n") in html


def test_a_checkpoint_that_does_not_say_when_it_was_saved(run, capsys):
    for text in ("null", "{}", '{"commit_timestamp_nsecs": "x"}', DEEP, "\udcff", "9" * 5000):
        file = run / "checkpoints" / "40" / "_CHECKPOINT_METADATA"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode(errors="surrogateescape"))
        found = status_of(run, capsys)
        assert (found["checkpoint"], found["checkpoint_age"]) == (40, None)


def test_what_a_terminal_would_obey_is_not_shown(run, capsys):
    change(run / "metrics.jsonl", 6, "task", r'"\u001b[2Jall\ud800"')
    change(run / "run.json", 0, "name", r'"a\nb\u0000"')
    found = status_of(run, capsys)
    assert (found["left_out"], found["held_out_task"]) == ([], "all")
    _, html = report_of(run, capsys)
    assert "\ufffd[2Jall\ufffd" in html and "a\ufffdb\ufffd" in html


def test_the_largest_numbers_that_are_read_can_be_drawn(run, capsys, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(run.parent)
    for number, value in ((1, 3e38), (3, -3e38), (5, 1e-320)):
        for field in ("loss", "neg_log_perplexity", "gradient_norm", "tokens_per_second"):
            change(run / "metrics.jsonl", number, field, str(value))
    change(run / "metrics.jsonl", 5, "step", str(10**15))
    change(run / "metrics.jsonl", 6, "step", str(10**15))
    change(run / "metrics.jsonl", 6, "neg_log_perplexity", "-3e38")
    change(run / "metrics.jsonl", 5, "seconds", "1e11")
    change(run / "metrics.jsonl", 5, "router.encoder.load", "[[null, 3e38]]")
    assert status_of(run, capsys)["left_out"] == []
    assert report_of(run, capsys)[0] == []


def test_a_folder_with_nothing_that_fits_is_a_mistake_in_one_line(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text("5\n{}\n")
    for command in ("status", "report"):
        assert main([command, str(tmp_path)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "metrics.jsonl: 2 of 2 records left out (line 1: it is 5, not an object)" in line
