"""docs/run_folder.md names what there is; tests of runs compare its tables with what they write."""

from switch_jax.metrics import RECORDED_STATISTICS
from switch_jax.run_folder import RecordKind, RunFolder
from tests.run_folder.documented import PAGE, Row, table_of, tables


def test_no_table_is_of_something_else():
    kinds = [f"Kind {kind}" for kind in RecordKind]
    assert sorted(tables()) == sorted(
        ["Fields of all records", *kinds, "run.json", "status.json", "starts.json"]
    )


def test_the_statistics_of_routers_are_documented_as_they_are_declared():
    table = table_of("train")
    for name, statistic in RECORDED_STATISTICS.items():
        numbers = "numbers [N, E]" if statistic.per_expert else "numbers [N]"
        assert table[f"router.encoder.{name}"] == Row(numbers, statistic.meaning)


def test_every_name_in_the_folder_is_documented(tmp_path):
    text = PAGE.read_text(encoding="utf-8")
    folder = RunFolder(tmp_path)
    evaluation = folder.evaluation
    paths = {
        f"`{path.relative_to(tmp_path)}": path
        for path in (
            folder.metrics,
            folder.config,
            folder.config_json,
            folder.vocabulary,
            folder.description,
            folder.status,
            folder.starts,
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
        (evaluation.predictions_of("qa", "test", 7), "eval/predictions/TASK-SPLIT-STEP.jsonl"),
    ):
        filled = pattern.replace("TASK", "qa").replace("SPLIT", "test").replace("STEP", "7")
        filled = filled.replace("_N_", "_3_").replace("_I.", "_1.")
        assert str(path.relative_to(tmp_path)) == filled
        assert f"`{pattern}" in text
