"""`switch_jax eval` and `switch_jax infer` on a run of a few steps."""

import io
import json
import os
import shutil
import sys

import numpy as np
import pytest
import seqio

from switch_jax.cli import main
from switch_jax.tasks.english import VOCABULARY
from tests.cli.answers import QUESTIONS
from tests.run_folder.documented import problems, table_of
from tests.storage.copies import copy_files


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with checkpoints of steps 2 and 4."""
    folder = tmp_path_factory.mktemp("run")
    gin = folder / "answers.gin"
    gin.write_text(
        "import tests.cli.answers\n"
        "include 'models/switch_demo.gin'\ninclude 'runs/demo.gin'\n"
        "MIXTURE_OR_TASK_NAME = 'answers'\nTASK_FEATURE_LENGTHS = {'inputs': 32, 'targets': 8}\n"
        "NUM_ENCODER_LAYERS = 1\nNUM_DECODER_LAYERS = 1\nGROUP_SIZE = 32\nBATCH_SIZE = 8\n"
        "TRAIN_STEPS = 4\nCHECKPOINT_PERIOD = 2\nEVAL_PERIOD = 2\nEVAL_STEPS = 1\nPACK = False\n"
    )
    assert main(["train", f"--gin_file={gin}", f"--gin.MODEL_DIR={folder / 'run'}"]) == 0
    return folder / "run"


@pytest.fixture(autouse=True)
def each_command_in_a_process(monkeypatch):
    """As far as the folders of data are concerned, which a command tells seqio."""
    monkeypatch.setattr(seqio.utils, "_TFDS_DATA_DIR_OVERRIDE", None)
    monkeypatch.setattr(seqio.utils, "_GLOBAL_CACHE_DIRECTORIES", [])


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def records(run, **wanted):
    found = lines(run / "eval" / "metrics.jsonl")
    return [r for r in found if all(r.get(k) == v for k, v in wanted.items())]


def test_eval_writes_every_score_once(run, capsys):
    assert main(["eval", str(run), "--checkpoint=all"]) == 0
    table = capsys.readouterr().out
    first = (run / "eval" / "metrics.jsonl").read_text()
    # Two tasks and their mean over tokens; two tasks and their average.
    for step in 2, 4:
        given = {r["task"]: r["metrics"] for r in records(run, kind="teacher_forced", step=step)}
        assert set(given) == {"exact_answers", "probable_answers", "all"}
        assert given["exact_answers"]["neg_log_perplexity"] < 0
        generated = {r["task"]: r["metrics"] for r in records(run, kind="generated", step=step)}
        assert set(generated) == {"exact_answers", "probable_answers", "answers"}
        # Both are of the same targets: log-probability per token, and in all.
        tokens = given["probable_answers"]["tokens"]
        np.testing.assert_allclose(
            generated["probable_answers"]["log_prob"],
            given["probable_answers"]["neg_log_perplexity"] * tokens,
            rtol=1e-4,
        )
        rows = lines(run / "eval" / "predictions" / f"exact_answers-validation-{step}.jsonl")
        assert [row["inputs"] for row in rows] == QUESTIONS
        assert [row["targets"] for row in rows] == [str(i + 1) for i in range(10)]
        correct = sum(row["prediction"] == row["targets"] for row in rows)
        assert generated["exact_answers"]["exact"] == 10 * correct
    assert "exact_answers" in table and "average" in table
    assert table.endswith(f"written to {run}/eval\n")
    assert any((run / "eval" / "tensorboard").iterdir())
    for record in records(run):
        assert problems(record, table_of(record["kind"])) == []

    assert main(["eval", str(run), "--checkpoint=all"]) == 0
    assert capsys.readouterr().out == table
    assert (run / "eval" / "metrics.jsonl").read_text() == first, "nothing is computed twice"


def test_commands_take_a_run_in_a_bucket(run, bucket_path, capsys):
    folder, page = copy_files(run, bucket_path / "run"), bucket_path / "report.html"
    assert main(["status", str(folder)]) == 0
    assert capsys.readouterr().out.startswith(f"{folder}: finished\n")
    assert main(["eval", str(folder), "--task=exact_answers", "--max_examples=2"]) == 0
    table = capsys.readouterr().out
    (score,) = records(folder, kind="teacher_forced", max_examples=2)
    assert f"{score['metrics']['neg_log_perplexity']:.4g}" in table
    assert main(["report", str(folder), f"--output={page}"]) == 0
    held_out = [r for r in lines(folder / "metrics.jsonl") if r["kind"] == "eval"][-1]
    value = f"{held_out['neg_log_perplexity']:.3f}"
    assert value in capsys.readouterr().out and f"<strong>{value}</strong>" in page.read_text()


def test_a_checkpoint_that_was_saved_again_is_evaluated_again(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    arguments = ["eval", str(copy), "--task=exact_answers", "--checkpoint=2"]
    assert main(arguments) == 0
    before = len(records(copy, kind="generated", step=2, task="exact_answers"))
    (metadata,) = (copy / "checkpoints" / "2").glob("_CHECKPOINT_METADATA")
    content = json.loads(metadata.read_text())
    content["commit_timestamp_nsecs"] += 10**9
    metadata.write_text(json.dumps(content))
    assert main(arguments) == 0
    assert len(records(copy, kind="generated", step=2, task="exact_answers")) == before + 1


def test_scores_of_data_in_another_folder_are_not_reused(run, tmp_path):
    arguments = ["eval", str(run), "--task=exact_answers", "--max_examples=6"]
    flags = [["--tfds_data_dir=data"], [f"--tfds_data_dir={tmp_path}"], ["--tfds_data_dir=data"]]
    for flag in flags:
        assert main([*arguments, *flag]) == 0
    found = records(run, kind="generated", task="exact_answers", max_examples=6)
    folders = [json.loads(record["settings"])["places"]["tfds_data_dir"] for record in found]
    assert folders == [os.path.abspath("data"), str(tmp_path)]


def test_a_given_config_replaces_one_that_cannot_be_read(run, tmp_path, capsys):
    copy, own = tmp_path / "run", tmp_path / "own.gin"
    shutil.copytree(run, copy)
    config = copy / "config.gin"
    shutil.copy(config, own)
    arguments = ["eval", str(copy), "--task=exact_answers", "--max_examples=2"]

    config.write_text(f"{own.read_text()}\nimport gone_module\n")
    assert main([*arguments, f"--gin_file={own}"]) == 0
    assert main(arguments) == 2
    assert "cannot import 'gone_module'" in capsys.readouterr().err

    config.write_text(f"{own.read_text()}\nBATCH_SIZE = 0\n")
    assert main([*arguments, "--gin.BATCH_SIZE=8"]) == 0


def test_infer_answers_in_the_order_of_the_input(run, tmp_path, capsys, monkeypatch):
    (tmp_path / "in.txt").write_text("\n".join(QUESTIONS))
    output = tmp_path / "out.jsonl"
    common = ["infer", str(run), "--max_tokens=6"]
    arguments = [*common, f"--input={tmp_path / 'in.txt'}", f"--output={output}", "--part_size=4"]
    assert main(arguments) == 0
    found = lines(output)
    assert [row["inputs"] for row in found] == QUESTIONS
    assert all(row["score"] < 0 for row in found)
    assert main(arguments) == 2
    assert "already exists: choose another output" in capsys.readouterr().err

    piped = io.BytesIO("\n".join(QUESTIONS[:3]).encode())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(piped))
    assert main([*common, "--input=-"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["prediction"] for row in printed] == [row["prediction"] for row in found[:3]]


def test_infer_has_a_bar_on_a_terminal_from_the_first_result_on(run, tmp_path, capsys, monkeypatch):
    (tmp_path / "in.txt").write_text(QUESTIONS[0])
    infer = ["infer", str(run), "--max_tokens=2"]
    piped = io.BytesIO(QUESTIONS[0].encode())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(piped))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for arguments, bar in (
        ([f"--input={tmp_path / 'none'}", f"--output={tmp_path / 'none.jsonl'}"], False),
        (["--input=-"], False),  # the answers may be on the terminal, too
        ([f"--input={tmp_path / 'in.txt'}", f"--output={tmp_path / 'out.jsonl'}"], True),
    ):
        main([*infer, *arguments])
        shown = capsys.readouterr().err
        assert ("\r1 examples" in shown) == bar and "\r0 examples" not in shown


def test_infer_says_which_texts_are_cut_off(run, tmp_path, monkeypatch, capsys):
    long = "who? " * 20
    piped = io.BytesIO(f"{QUESTIONS[0]}\n{long}".encode())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(piped))
    assert main(["infer", str(run), "--max_tokens=6", "--input=-"]) == 0
    printed, messages = capsys.readouterr()
    short, cut = map(json.loads, printed.splitlines())
    left_out = len(VOCABULARY.encode(long)) - 31
    assert "cut" not in short and cut["cut"] == {"inputs": left_out}
    assert "1 of 2 examples are longer than TASK_FEATURE_LENGTHS = {" in messages


@pytest.mark.parametrize(
    ("source", "code"), [("--input={}/in.txt", 0), ("--task=exact_answers", 2)]
)
def test_folders_of_data_matter_to_tasks_only(run, source, code, tmp_path, monkeypatch, capsys):
    (tmp_path / "in.txt").write_text(QUESTIONS[0])
    output = tmp_path / "out.jsonl"
    arguments = ["infer", str(run), source.format(tmp_path), f"--output={output}"]
    monkeypatch.setenv("TFDS_DATA_DIR", "one")
    assert main([*arguments, "--num_shards=2", "--shard=1"]) == 0 and not output.exists()
    monkeypatch.setenv("TFDS_DATA_DIR", "other")
    assert main([*arguments, "--num_shards=2", "--shard=0"]) == code
    assert output.exists() == (code == 0)
    assert ("holds parts of other results" in capsys.readouterr().err) == (code == 2)


def test_infer_scores_a_task_as_eval_does(run, tmp_path):
    output = tmp_path / "scores.jsonl"
    task = ["--task=probable_answers", "--score", "--checkpoint=4", f"--output={output}"]
    jobs = [["infer", str(run), *task, "--part_size=3", "--num_shards=2"]] * 2
    assert main([*jobs[0], "--shard=1"]) == 0 and not output.exists()
    assert main([*jobs[1], "--shard=0"]) == 0
    found = lines(output)
    assert [row["targets"].strip() for row in found] == [str(i + 1) for i in range(10)]
    assert main(["eval", str(run), "--task=probable_answers", "--checkpoint=4"]) == 0
    score = records(run, kind="generated", step=4, task="probable_answers", max_examples=None)[-1]
    np.testing.assert_allclose(
        sum(row["score"] for row in found), score["metrics"]["log_prob"], rtol=1e-4
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["eval", "RUN", "--checkpoint=new"], "--checkpoint = 'new': write latest, best, or"),
        (["eval", "RUN", "--max_examples=0"], "--max_examples = 0: it must be at least 1"),
        (["eval", "RUN", "--batch_size=0"], "--batch_size = 0: it must be at least 1"),
        (["infer", "RUN", "--task=udhr.en"], "has 8100 ids, but the model's embedding has 1152"),
        (["infer", "RUN", "--input=-", "--output=o.jsonl"], "answers on standard output"),
        (["eval", "RUN", "--temperature=nan"], "--temperature = nan: it must be a finite number"),
        (
            ["infer", "RUN", "--input=in.txt", f"--part_size={10**30}"],
            "it must be at most 1,000,000,000",
        ),
        (["infer", "RUN", "--input=in.txt", "--shard=1"], "--shard = 1: it must be at most 0"),
        (["infer", "RUN", "--input=in.txt", "--num_shards=2"], "--num_shards needs an --output"),
        (
            ["infer", "RUN", "--input=in.txt", "--checkpoint=all"],
            "--checkpoint = 'all': write latest, best, or",
        ),
    ],
)
def test_mistakes_are_one_line(run, arguments, message, tmp_path, capsys):
    (tmp_path / "in.txt").write_text("question")
    assert main([str(run) if a == "RUN" else a for a in arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error and error.startswith(f"switch_jax {arguments[0]}: ")
