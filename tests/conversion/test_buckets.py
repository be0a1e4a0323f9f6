"""Models of others, runs, exported folders and answers, all in a bucket: as on a disk."""

import json

import pytest
from safetensors.numpy import load

from switch_jax.cli import main
from switch_jax.storage import list_names
from tests.conversion.test_convert import run, theirs  # noqa: F401


@pytest.fixture
def in_bucket(theirs, bucket_path):  # noqa: F811
    """A Hugging Face folder in a bucket."""
    folder = bucket_path / "theirs"
    for file in theirs.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_there_and_back_gives_the_same_files(theirs, in_bucket, bucket_path):  # noqa: F811
    ours, back = bucket_path / "run", bucket_path / "back"
    assert main(["convert", str(in_bucket), str(ours)]) == 0
    assert main(["convert", str(ours), str(back)]) == 0
    tensors = load((back / "model.safetensors").read_bytes())
    for name, tensor in load((theirs / "model.safetensors").read_bytes()).items():
        if name in tensors:
            assert (tensors[name] == tensor).all(), name
    assert {"config.json", "model.safetensors", "spiece.model"} <= set(list_names(back))
    assert list_names(bucket_path) == ["back", "run", "theirs"], "nothing unfinished is left"


def test_infer_reads_and_writes_there_as_on_a_disk(
    run,  # noqa: F811
    in_bucket,
    bucket_path,
    tmp_path,  # noqa: F811
):
    ours = bucket_path / "run"
    assert main(["convert", str(in_bucket), str(ours)]) == 0
    questions = "Where is Paris?\nWho?\n"
    (bucket_path / "questions.txt").write_text(questions)
    (tmp_path / "questions.txt").write_text(questions)
    answers = []
    for model, folder in ((run, tmp_path), (ours, bucket_path)):
        flags = [f"--input={folder}/questions.txt", f"--output={folder}/answers.jsonl"]
        flags += ["--max_tokens=4", "--gin.MESH_DATA=1", "--batch_size=2"]
        flags += ["--gin.TASK_FEATURE_LENGTHS={'inputs': 16, 'targets': 8}"]
        assert main(["infer", str(model), *flags]) == 0
        answers.append((folder / "answers.jsonl").read_text().splitlines())
    assert answers[0] == answers[1] and len(answers[0]) == 2
    assert json.loads(answers[0][1])["inputs"] == "Who?"


def test_what_is_not_there_is_one_line(bucket_path, capsys):
    assert main(["convert", str(bucket_path / "absent"), str(bucket_path / "run")]) == 2
    assert f"there is no folder {bucket_path}/absent to take a model" in capsys.readouterr().err
