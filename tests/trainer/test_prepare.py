import dataclasses

import jax
import pytest
import seqio
from jax.sharding import AbstractMesh, AxisType

from switch_jax.config import Config, DataConfig, MeshConfig, RunConfig
from switch_jax.data import checks
from switch_jax.errors import FieldError, UserError
from switch_jax.partitioning.mesh import AXES
from switch_jax.trainer.prepare import check_for_slices, prepare
from tests.trainer import tiny_task  # noqa: F401  registers it
from tests.trainer.helpers import tiny_model

MODEL = tiny_model(num_embeddings=1152, group_size=64)
DATA = DataConfig("tiny_copy", {"inputs": 32, "targets": 16}, data_streams=2)


@pytest.fixture
def config(tmp_path):
    run = RunConfig(str(tmp_path / "run"), train_steps=3, batch_size=8)
    return Config(run, MODEL, DATA, MeshConfig(1, 2, 1))


def test_a_run_is_prepared_and_nothing_is_written(config, tmp_path):
    prepared = prepare(config, "")
    assert prepared.config is config
    assert dict(prepared.mesh.shape) == {"data": 1, "expert": 2, "model": 1}
    assert prepared.state.parameters["token_embedding"]["embedding"].shape == (1152, 16)
    assert prepared.warm_start is None
    assert prepared.train_tasks.names == prepared.validation_tasks.names == ["tiny_copy"]
    assert prepared.train_tasks.config.split == "train"
    assert prepared.validation_tasks.config.split == "validation"
    assert list(tmp_path.iterdir()) == []


def test_without_evaluation_no_validation_split_is_looked_for(config, tmp_path):
    (tmp_path / "train.txt").write_text("one line\n")
    task = seqio.get_mixture_or_task("tiny_copy")
    seqio.TaskRegistry.add(
        "tiny_unvalidated",
        source=seqio.TextLineDataSource({"train": str(tmp_path / "train.txt")}),
        preprocessors=task.preprocessors,
        output_features=task.output_features,
    )
    config = config.replace("data", mixture_or_task_name="tiny_unvalidated")
    try:
        message = "no split 'validation': .* are train; to train without .* EVAL_PERIOD to None$"
        with pytest.raises(UserError, match=message):
            prepare(config, "")
        assert prepare(config.replace("run", eval_period=None), "").validation_tasks is None
        with pytest.raises(UserError, match="its splits are train$"):  # as `switch_jax eval` says
            checks.open_tasks(dataclasses.replace(config.data, split="validation"))
    finally:
        seqio.TaskRegistry.remove("tiny_unvalidated")


@pytest.mark.parametrize(
    ("name", "value"),
    [("best_metric", "accuracy"), ("early_stopping_evals", 3), ("infer_eval", True)],
)
def test_what_needs_evaluations_is_refused_without_them(config, name, value):
    with pytest.raises(FieldError, match=f"{name} = .* does not go with EVAL_PERIOD = None$"):
        config.replace("run", eval_period=None, **{name: value})


def test_files_are_looked_for_once_and_one_example_is_read(config, monkeypatch):
    calls = []

    def counted(name):
        inner = getattr(checks, name)
        monkeypatch.setattr(
            checks, name, lambda *args: (calls.append((name, args[0].name)), inner(*args))[1]
        )

    counted("check_files_exist")
    counted("in_order")
    prepare(config, "")
    # Of training and validation; the example is one for training.
    assert calls == [("check_files_exist", "tiny_copy")] * 2 + [("in_order", "tiny_copy")]


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("run", {"best_metric": "bleu"}, "best_metric = 'bleu': write neg_log_perplexity or acc"),
        (
            "run",
            {"best_metric": "generated_em"},
            "metric of generated text, computed with INFER_EV",
        ),
        ("run", {"infer_eval": True}, "INFER_EVAL = True .* tiny_copy has none: set INFER_EVAL to"),
        ("data", {"data_streams": 3}, "batch size 8 does not divide over 3 streams"),
        ("run", {"model_dir": "gs://Not a bucket/x"}, "MODEL_DIR"),
        ("run", {"num_microbatches": 8}, "batch size 8 does not divide .* 2 devices and 8 micro"),
        ("run", {"initial_checkpoint_path": "/no/such/run"}, "/no/such/run"),
        (
            "model",
            {"num_embeddings": 128},
            "128 rows; set NUM_EMBEDDINGS to 1100 or more$",
        ),
        ("model", {"group_size": 256}, "GROUP_SIZE = 256 does not fit"),
        ("data", {"mixture_or_task_name": "tiny_copi"}, "tiny_copi"),
        ("data", {"split": "no_split"}, "no split 'no_split'"),
        ("mesh", {"data": 8, "expert": 4}, "32"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    config, tmp_path, part, changes, message
):
    with pytest.raises(UserError, match=message):
        prepare(config.replace(part, **changes), "")
    assert list(tmp_path.iterdir()) == []


def test_slices_are_checked_without_their_devices(config):
    def devices(*shape):
        return AbstractMesh(shape, AXES, axis_types=(AxisType.Auto,) * 3)

    check_for_slices(config.replace("model", group_size=32), devices(1, 4, 1))
    many = dataclasses.replace(config, mesh=MeshConfig(64, 4, 1))
    with pytest.raises(UserError, match="does not divide over data x expert = 256 devices"):
        check_for_slices(many, devices(64, 4, 1))
    assert jax.device_count() == 8, "and this machine has no 256 devices"
