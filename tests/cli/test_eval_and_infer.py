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
from switch_jax.evaluation.evaluate import CheckpointEvaluator
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
        "MESH_EXPERT = 1\n"
        "TRAIN_STEPS = 4\nCHECKPOINT_PERIOD = 2\nEVAL_PERIOD = 2\nEVAL_STEPS = 1\nPACK = False\n"
    )
    assert main(["train", f"--gin_file={gin}", f"--gin.MODEL_DIR={folder / 'run'}"]) == 0
    return folder / "run"


@pytest.fixture(autouse=True)
def each_command_in_a_process(monkeypatch):
    """Undoes what a command sets in seqio, as if each ran in another process."""
    monkeypatch.setattr(seqio.utils, "_TFDS_DATA_DIR_OVERRIDE", None)
    monkeypatch.setattr(seqio.utils, "_GLOBAL_CACHE_DIRECTORIES", [])


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def records(run, **wanted):
    found = lines(run / "eval" / "metrics.jsonl")
    return [r for r in found if all(r.get(k) == v for k, v in wanted.items())]


def test_eval_writes_every_score(run, capsys):
    assert main(["eval", str(run), "--checkpoint=all"]) == 0
    table = capsys.readouterr().out
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
    (bucket_path / "in.txt").write_text(QUESTIONS[0])
    files = [f"--input={bucket_path}/in.txt", f"--output={bucket_path}/out.jsonl"]
    assert main(["infer", str(folder), *files]) == 0
    (row,) = lines(bucket_path / "out.jsonl")
    (evaluated, _) = lines(folder / "eval/predictions/exact_answers-validation-4.jsonl")
    assert (row["inputs"], row["prediction"]) == (QUESTIONS[0], evaluated["prediction"])


def test_scores_depend_on_when_the_checkpoint_was_saved_and_where_the_data_lie(
    run, tmp_path, monkeypatch
):
    """Which scores are reused shows tests/evaluation/test_evaluate.py."""
    seen = []
    monkeypatch.setattr(
        CheckpointEvaluator, "evaluate", lambda self, step, settings: seen.append(settings) or []
    )
    copy = shutil.copytree(run, tmp_path / "run")
    arguments = ["eval", str(copy), "--task=exact_answers", "--checkpoint=2"]
    assert main([*arguments, "--tfds_data_dir=data"]) == 0
    (metadata,) = (copy / "checkpoints" / "2").glob("_CHECKPOINT_METADATA")
    content = json.loads(metadata.read_text())
    content["commit_timestamp_nsecs"] += 10**9
    metadata.write_text(json.dumps(content))
    assert main([*arguments, f"--tfds_data_dir={tmp_path}"]) == 0
    before, after = seen
    assert before.pop("saved") < after.pop("saved")
    folders = [settings.pop("places")["tfds_data_dir"] for settings in seen]
    assert folders == [os.path.abspath("data"), str(tmp_path)] and before == after


def test_a_given_config_replaces_one_that_cannot_be_read(run, tmp_path, capsys):
    copy, own = shutil.copytree(run, tmp_path / "run"), tmp_path / "own.gin"
    config = copy / "config.gin"
    shutil.copy(config, own)
    arguments = ["convert", "--inspect", str(copy)]

    config.write_text(f"{own.read_text()}\nimport gone_module\n")
    assert main([*arguments, f"--gin_file={own}"]) == 0
    assert main(arguments) == 2
    assert "cannot import 'gone_module'" in capsys.readouterr().err

    config.write_text(f"{own.read_text()}\nBATCH_SIZE = 0\n")
    assert main([*arguments, "--gin.BATCH_SIZE=8"]) == 0


def test_infer_answers_in_the_order_of_the_input(run, tmp_path, capsys, monkeypatch):
    """A file by two jobs, to which folders of data do not matter; then standard input.

    On a terminal a file's answers have a bar, and not those that may be on the terminal, too.
    """
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    (tmp_path / "in.txt").write_text("\n".join(QUESTIONS))
    output = tmp_path / "out.jsonl"
    common = ["infer", str(run), "--max_new_tokens=6"]
    job = [*common, f"--input={tmp_path / 'in.txt'}", f"--output={output}", "--part_size=4"]
    for shard in (1, 0):
        assert not output.exists()
        monkeypatch.setenv("TFDS_DATA_DIR", f"folder_{shard}")
        assert main([*job, "--num_shards=2", f"--shard={shard}"]) == 0
    found = lines(output)
    assert [row["inputs"] for row in found] == QUESTIONS
    assert all(row["score"] < 0 for row in found)
    assert "\r1 examples" in capsys.readouterr().err
    assert main(job) == 2
    assert "already exists: choose another output" in capsys.readouterr().err

    long = "who? " * 20
    piped = io.BytesIO("\n".join([*QUESTIONS[:3], "漢字?", long]).encode())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(piped))
    assert main([*common, "--input=-"]) == 0
    text, messages = capsys.readouterr()
    *printed, unknown, cut = map(json.loads, text.splitlines())
    assert [row["prediction"] for row in printed] == [row["prediction"] for row in found[:3]]
    assert cut["cut"] == {"inputs": len(VOCABULARY.encode(long)) - 31}
    assert unknown["unknown"] == {"inputs": 1}
    assert not any(row.keys() & {"cut", "unknown"} for row in printed)
    assert "1 of 5 examples are longer than TASK_FEATURE_LENGTHS = {" in messages
    assert "1 of 5 examples have characters that the vocabulary lacks" in messages
    assert "\r" not in messages


def test_infer_begins_anew_after_a_mended_input(run, tmp_path, capsys):
    questions, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    good = [json.dumps({"inputs": question}) for question in QUESTIONS]
    questions.write_text("\n".join([*good[:8], "[" * 10_000]))
    job = ["infer", str(run), f"--input={questions}", f"--output={output}", "--part_size=8"]
    assert main([*job, "--max_new_tokens=6"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.endswith("in.jsonl, line 9 is not valid JSON: it nests too deeply")
    questions.write_text("\n".join(good))
    assert main([*job, "--max_new_tokens=6"]) == 0
    assert "out.jsonl.parts has parts of other results (size and ver" in capsys.readouterr().err
    assert [row["inputs"] for row in lines(output)] == QUESTIONS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_infer_says_that_an_empty_file_has_nothing_to_do(run, tmp_path, capsys):
    (tmp_path / "empty.txt").touch()
    output = tmp_path / "answers.jsonl"
    flags = [f"--input={tmp_path}/empty.txt", f"--output={output}"]
    assert main(["infer", str(run), *flags]) == 0
    assert f"nothing to do: {tmp_path}/empty.txt has no examples" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "empty.txt"]
    assert output.read_bytes() == b""


def test_infer_scores_a_task_as_eval_does(run, tmp_path, capsys, monkeypatch):
    """By two jobs, which have to read the same data."""
    output = tmp_path / "scores.jsonl"
    task = ["--task=probable_answers", "--score", "--checkpoint=4", f"--output={output}"]
    job = ["infer", str(run), *task, "--part_size=3", "--num_shards=2"]
    assert main([*job, "--shard=1"]) == 0 and not output.exists()
    with monkeypatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", "other")
        assert main([*job, "--shard=0"]) == 2
    assert "holds parts of other results" in capsys.readouterr().err
    assert main([*job, "--shard=0"]) == 0
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
        (["infer", "RUN", "--task=udhr.en"], "has 8100 ids, but the model's embedding has 1152"),
        (["infer", "RUN", "--input=-", "--output=o.jsonl"], "answers on standard output"),
        (["infer", "RUN", "--input=in.txt", "--shard=1"], "--shard = 1: it must be at most 0"),
        (["infer", "RUN", "--input=in.txt", "--num_shards=2"], "--num_shards needs an --output"),
    ],
)
def test_mistakes_are_one_line(run, arguments, message, tmp_path, capsys):
    (tmp_path / "in.txt").write_text("question")
    assert main([str(run) if a == "RUN" else a for a in arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error and error.startswith(f"switch_jax {arguments[0]}: ")
