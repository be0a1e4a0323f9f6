"""docs/run_folder.md, the schema in the code, and what runs have written say the same."""

import json
import tarfile
from pathlib import Path

import pytest

from switch_jax.run_folder import RecordKind, RunFolder, schemas
from switch_jax.schema import Object
from tests.run_folder.documented import PAGE, problems, table_of, tables

EARLIER_RUNS = Path(__file__).parents[1] / "trainer/earlier_runs/runs.tar.xz"


def types_of(schema, prefix=""):
    """Of each field of an object, and of the objects in it, the type."""
    found = {}
    for name, check in schema.fields.items():
        found[prefix + name] = check.type_name
        if isinstance(check, Object):
            found |= types_of(check, f"{prefix}{name}.")
    return found


@pytest.mark.parametrize("kind", RecordKind)
def test_a_kind_of_record_is_documented(kind):
    schema = {**schemas.METRICS, **schemas.EVAL_METRICS, **schemas.EXPERT_TOKENS}[kind]
    assert {field: row.type for field, row in table_of(kind).items()} == types_of(schema)


@pytest.mark.parametrize(
    ("file", "schema"), [("run.json", schemas.RUN_JSON), ("status.json", schemas.STATUS_JSON)]
)
def test_a_file_is_documented(file, schema):
    assert {field: row.type for field, row in tables()[file].items()} == types_of(schema)


def test_no_table_is_of_something_else():
    kinds = [f"Kind {kind}" for kind in RecordKind]
    assert sorted(tables()) == sorted(["Fields of all records", *kinds, "run.json", "status.json"])


def test_every_field_has_a_meaning():
    for heading, rows in tables().items():
        for field, row in rows.items():
            assert row.meaning, f"{heading}: {field}"


def test_every_name_in_the_folder_is_documented(tmp_path):
    text = PAGE.read_text(encoding="utf-8")
    folder = RunFolder(tmp_path)
    evaluation = folder.evaluation
    paths = {
        f"`{path.relative_to(tmp_path)}": path
        for path in (
            folder.metrics,
            folder.config,
            folder.vocabulary,
            folder.description,
            folder.status,
            folder.lock,
            folder.tensorboard,
            folder.discarded,
            folder.damaged,
            folder.wandb_run_id,
            evaluation.metrics,
            evaluation.tensorboard,
        )
    }
    assert [name for name in paths if name not in text] == []
    for path, pattern in (
        (folder.checkpoint(7), "checkpoints/STEP"),
        (folder.metadata_override(7), "amended/STEP.json"),
        (folder.bad_batch(3, 1), "bad_batches/batch_N_process_I.npz"),
        (folder.hanging_process(1), "hanging_process_I.txt"),
        (evaluation.predictions_of("qa", "test", 7), "eval/predictions/TASK-SPLIT-STEP.jsonl"),
        (evaluation.expert_tokens_of("qa", "test", 7), "eval/expert_tokens/TASK-SPLIT-STEP.jsonl"),
    ):
        filled = pattern.replace("TASK", "qa").replace("SPLIT", "test").replace("STEP", "7")
        filled = filled.replace("_N_", "_3_").replace("_I.", "_1.")
        assert str(path.relative_to(tmp_path)) == filled
        assert f"`{pattern}" in text


@pytest.mark.parametrize("name", ["t5", "switch"])
def test_what_an_earlier_version_wrote_is_as_documented(tmp_path, name):
    with tarfile.open(EARLIER_RUNS) as archive:
        archive.extractall(tmp_path, filter="data")
    run = tmp_path / name
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {record["kind"] for record in records} == {"train", "eval"}
    assert [p for record in records for p in problems(record, table_of(record["kind"]))] == []
    for file in ("run.json", "status.json"):
        assert problems(json.loads((run / file).read_text()), tables()[file]) == []


def test_a_record_that_is_not_as_documented_is_found():
    table = table_of("train")
    good = {"kind": "train", "step": 1, "loss": None, "spent": {"step": 1.5}, "norms": {}}
    assert problems(good, table) == []
    bad = {
        "kind": 1,
        "step": 1.5,
        "loss": "x",
        "spent": {"stop": 1},
        "new": 1,
        "batches": True,
        "norms": {"gradient": {"a": "x"}},
        "router": {"encoder": {"load": [0.5]}},
    }
    fields = [problem.split(" is ")[0] for problem in problems(bad, table)]
    assert fields == [
        *("kind", "step", "loss", "spent.stop", "new", "batches", "norms.gradient"),
        "router.encoder.load",
    ]
