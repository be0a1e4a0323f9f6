"""What is damaged is left out with one line, and the rest is read."""

import errno
import json
import os

import pytest
from etils import epath

from switch_jax.run_folder import (
    RunFolder,
    read_commit_time,
    read_object,
    read_records,
    read_run_config,
    read_run_facts,
)
from switch_jax.utils.errors import TransientError, UserError
from tests.storage.slow_proxy import Faults
from tests.trainer.helpers import tiny_config, tiny_model


def test_lines_that_are_no_records_or_lack_what_is_read_are_left_out(tmp_path):
    good = [
        {"kind": "train", "step": 1, "loss": None, "spent": {"step": 1.5}},
        {"kind": "eval", "step": 1, "neg_log_perplexity": -2.0},
        {"kind": "rollback", "step": 5, "back_to": 3},
        {"kind": "of_a_user", "step": 7},
    ]
    bad = [
        "null", "5", "[]", '"words"', "1" * 5000, "[" * 100_000, "\xff", "{}", '{"step": 1}',
        '{"kind": 1, "step": 1}', '{"kind": ["train"], "step": 1}', '{"kind": "train"}',
        '{"kind": "train", "step": "1"}', '{"kind": "train", "step": true}',
        '{"kind": "eval", "step": 1, "accuracy": 1.0}', '{"kind": "rollback", "step": 5}',
        "\0" * 50,
        *(f'{{"kind": "train", "step": 1, "loss": {x}}}' for x in ("[1.5]", "1" * 400)),
        *(f'{{"kind": "train", "step": {x}}}' for x in ("20.5", "NaN", "1" * 5000)),
        '{"kind": "eval", "step": 1, "task": [1], "neg_log_perplexity": -1.0}',
        '{"kind": "train", "step": -1}', '{"kind": "rollback", "step": 5, "back_to": null}',
        *(f'{{"kind": "train", "step": 1, {field}}}' for field in (
            '"seconds": "long"', '"learning_rate": true', '"spent": {"step": "long"}',
            '"spent": 5', '"generated": {"em": "0"}', '"majority_baseline": [1]', '"batch": "2"',
            '"router": 7', '"router": {"encoder": 7}', '"router": {"encoder": {"layers": [1]}}',
        )),
        '{"kind": "train", "step": 2, "lo',
    ]  # fmt: skip
    lines = [json.dumps(good[0]), "", bad[0], *map(json.dumps, good[1:]), *bad[1:]]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines), encoding="latin-1")
    count = f"{len(bad)} of {len(good) + len(bad)} records"
    left_out = f"{tmp_path}/metrics.jsonl: {count} left out (the first is line 3)"
    assert read_records(RunFolder(tmp_path).metrics) == (good, left_out, None)


ROUTER = {"layers": [1], "sublayers": ["feed_forward"], "load": [[0.5, None]], "dropped": [0]}
ROUTER |= {"entropy": [0.1]}


def test_records_of_routers_have_lists_of_one_length(tmp_path):
    def record(**routers):
        return {"kind": "train", "step": 1, "router": routers}

    right = [record(encoder=ROUTER, decoder=dict.fromkeys(ROUTER, [])), record()]
    wrong = [{"load": [[0.5, "0.5"]]}, {"load": [[]]}, {"load": []}, {"load": 5}, {"load": [5]}]
    wrong += [{"dropped": 0.1}, {"dropped": ["0.1"]}, {"entropy": [0.1, 0.1]}, {"layers": ["1"]}]
    wrong += [{"sublayers": [1]}, {"several_experts": [[]]}]
    wrong += [{"router_logit_max": ["1"]}]
    lines = [*right, *(record(encoder=ROUTER | field) for field in wrong)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    left_out = f"{tmp_path}/metrics.jsonl: 12 of 14 records left out (the first is line 3)"
    assert read_records(RunFolder(tmp_path).metrics) == (right, left_out, None)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_damaged_object_is_one_line(tmp_path, text):
    file = epath.Path(tmp_path / "run.json")
    file.write_text('{"state": "running"}')
    assert read_object(file) == ({"state": "running"}, None, None)
    for name in ("run.json", "_CHECKPOINT_METADATA"):
        (tmp_path / name).write_text(text)
    assert read_object(file) == ({}, f"{file} is left out: it is damaged", None)
    assert read_commit_time(epath.Path(tmp_path)) is None


def test_what_is_not_there_is_empty_and_what_cannot_be_read_is_named(tmp_path):
    absent, folder, pipe = (epath.Path(tmp_path / name) for name in ("absent", "folder", "pipe"))
    folder.mkdir()
    os.mkfifo(pipe)
    for path, left_out in (
        (absent, None),
        (folder, f"{folder} is left out: it cannot be read (Is a directory)"),
        (pipe, f"{pipe} is left out: it is a pipe, of which a read may never end"),
    ):
        assert read_records(path)[:2] == ([], left_out)
        assert read_object(path)[:2] == ({}, left_out)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"seed": 5'])
def test_the_facts_of_a_run_or_why_there_are_none(tmp_path, text):
    folder, file = RunFolder(tmp_path), tmp_path / "run.json"
    assert read_run_facts(folder) == ({}, f"{file} is not there")
    file.write_text(text)
    assert read_run_facts(folder) == ({}, f"{file} is damaged")
    file.write_text('{"seed": 5}')
    assert read_run_facts(folder) == ({"seed": 5}, None)


def test_facts_that_cannot_be_read_just_now_are_not_damaged(tmp_path, bucket_path, faulty_storage):
    (tmp_path / "run.json").symlink_to("run.json")
    (bucket_path / "run.json").write_text("{}")
    for folder in (tmp_path, bucket_path):
        faulty_storage.faults = Faults([403])
        with pytest.raises(TransientError, match=f"^{folder}/run.json cannot be read: .*; this m"):
            read_run_facts(RunFolder(folder))


_REFUSALS = [errno.EACCES, errno.EMFILE, errno.ENOMEM, errno.ELOOP, errno.EIO]


@pytest.mark.parametrize("number", _REFUSALS, ids=errno.errorcode.get)
def test_what_cannot_be_read_just_now_may_be_read_later(tmp_path, monkeypatch, number):
    """Of the files that a start reads."""

    def refuse(path, *_):
        raise OSError(number, "words", str(path))

    folder = RunFolder(tmp_path)
    for file in (folder.description, folder.config_json):
        file.write_text("{}")
    monkeypatch.setattr(type(folder.path), "read_bytes", refuse)
    monkeypatch.setattr(os, "listdir", refuse)
    for name, read in (
        ("config.json", lambda: read_run_config(folder)),
        ("checkpoints", folder.checkpoint_steps),
        ("run.json", lambda: read_run_facts(folder)),
    ):
        with pytest.raises(TransientError) as error:
            read()
        message = f"{folder}/{name} cannot be read: words; this may pass: start again"
        assert (str(error.value), error.value.of_storage) == (message, True)


def test_the_config_of_a_run(storage):
    folder, config = RunFolder(storage), tiny_config(tiny_model())
    assert read_run_config(folder) is None
    settings = config.settings()
    folder.config_json.write_text(json.dumps(settings))
    assert read_run_config(folder) == config
    folder.config_json.write_text('{"model_type": "t5"}')
    assert read_run_config(folder) is None, "it is of Hugging Face"
    settings["model"]["of_another_version"] = 5
    for text in ("{", json.dumps(settings), json.dumps({"run": settings["run"]})):
        folder.config_json.write_text(text)
        with pytest.raises(UserError, match="config.json is damaged, or was written by another ve"):
            read_run_config(folder)
