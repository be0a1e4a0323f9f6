import contextlib
import dataclasses

import jax
import pytest
import seqio
from jax.sharding import AbstractMesh, AxisType

from switch_jax.config import MeshConfig
from switch_jax.data.catalogue import checks, configured_tasks
from switch_jax.partitioning.mesh import AXES
from switch_jax.trainer.start.announcement import beginning
from switch_jax.trainer.start.prepare import check_for_slices, check_run, prepare
from switch_jax.utils.errors import FieldError, UserError
from tests.trainer.helpers import tiny_model
from tests.trainer.tiny_runs import config_of

MODEL = tiny_model(num_embeddings=1152, group_size=64)


@pytest.fixture
def config(tmp_path):
    return config_of(tmp_path / "run", 3, (1, 2, 1), MODEL)


def test_a_run_is_prepared_and_nothing_is_written(config, tmp_path):
    prepared = prepare(config)
    assert prepared.config is config
    assert dict(prepared.mesh.shape) == {"data": 1, "expert": 2, "model": 1}
    assert prepared.state.parameters["token_embedding"]["embedding"].shape == (1152, 16)
    assert prepared.start is None
    assert prepared.train_tasks.names == prepared.validation_tasks.names == ["tiny_copy"]
    assert prepared.train_tasks.config.split == "train"
    assert prepared.validation_tasks.config.split == "validation"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def unvalidated(config, tmp_path):
    """The run on a task that has no validation split."""
    (tmp_path / "train.txt").write_text("one line\n")
    task = seqio.get_mixture_or_task("tiny_copy")
    seqio.TaskRegistry.add(
        "tiny_unvalidated",
        source=seqio.TextLineDataSource({"train": str(tmp_path / "train.txt")}),
        preprocessors=task.preprocessors,
        output_features=task.output_features,
    )
    yield config.replace("data", mixture_or_task_name="tiny_unvalidated")
    seqio.TaskRegistry.remove("tiny_unvalidated")


def test_without_evaluation_no_validation_split_is_looked_for(unvalidated):
    message = "no split 'validation': .* are train; .* --split, .* evaluation EVAL_PERIOD = None$"
    with pytest.raises(UserError, match=message):
        prepare(unvalidated)
    assert prepare(unvalidated.replace("run", eval_period=None)).validation_tasks is None


def test_splits_streams_and_vocabulary_are_checked_without_the_data(config, unvalidated, tmp_path):
    """A batch has 8 rows of 48 tokens; its vocabulary is the shipped one, of 1,100 ids."""
    (tmp_path / "train.txt").unlink()
    with pytest.raises(UserError, match="no split 'validation': its splits are train; to look"):
        check_run(unvalidated, readers=1)
    unvalidated = unvalidated.replace("run", eval_period=None)
    assert check_run(unvalidated, readers=2) == []
    with pytest.raises(UserError, match="tiny_unvalidated has no split 'test'"):
        check_run(unvalidated.replace("data", split="test"), readers=1)
    small = config.replace("model", num_embeddings=1099)
    with pytest.raises(UserError, match="1100 ids, but the model's embedding has 1099 rows"):
        check_run(small, readers=1)
    with pytest.raises(UserError, match="to 1104 or more, a multiple of MESH_MODEL = 8"):
        check_run(small.replace("mesh", model=8), readers=1)
    assert check_run(config.replace("model", num_embeddings=2200), readers=1) == []
    assert check_run(config.replace("model", num_embeddings=2201), readers=8) == [
        "warning: DATA_STREAMS = 2, and hosts split the batch into 8 parts: each reads the 192 "
        "tokens of a whole stream, and uses 48 of them; a run keeps its DATA_STREAMS, and one that "
        "is begun with 8 reads them once",
        "warning: NUM_EMBEDDINGS = 2201, and the vocabulary of tiny_copy has 1100 ids: the other "
        "1101 rows of the embedding are never used",
    ]


@pytest.mark.parametrize("splits", [("train",), None])
def test_the_splits_of_a_tfds_data_set_are_known_where_the_task_names_them(config, splits):
    output_features = seqio.get_mixture_or_task("tiny_copy").output_features
    source = seqio.TfdsDataSource("no/such:1.0.0", splits=splits)
    seqio.TaskRegistry.add(
        "tiny_tfds", source=source, preprocessors=[], output_features=output_features
    )
    refused = pytest.raises(UserError, match="tiny_tfds has no split 'validation'")
    try:
        with refused if splits else contextlib.nullcontext():
            of_tfds = config.replace("data", mixture_or_task_name="tiny_tfds")
            assert check_run(of_tfds, readers=1) == []
    finally:
        seqio.TaskRegistry.remove("tiny_tfds")


def test_a_run_begins_with_its_warnings(config):
    warned = prepare(config.replace("model", num_embeddings=4096))
    (line,) = [line for line in beginning(warned, None) if "NUM_EMBEDDINGS" in line]
    assert line.startswith(
        "warning: NUM_EMBEDDINGS = 4096, and the vocabulary of tiny_copy has 1100"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("best_metric", "accuracy"), ("early_stopping_evals", 3), ("infer_eval", True)],
)
def test_what_needs_evaluations_is_refused_without_them(config, name, value):
    with pytest.raises(FieldError, match=f"{name} = .* does not go with EVAL_PERIOD = None$"):
        config.replace("run", eval_period=None, **{name: value})


def test_files_are_looked_for_once_and_one_example_is_read(config, monkeypatch):
    calls = []

    def counted(module, name):
        inner = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *args: (calls.append((name, args[0].name)), inner(*args))[1]
        )

    counted(configured_tasks, "files_digest")
    counted(checks, "ordered_examples")
    prepare(config)
    # Of training and validation; the example is one for training.
    assert calls == [("files_digest", "tiny_copy")] * 2 + [("ordered_examples", "tiny_copy")]


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("run", {"best_metric": "generated_em"}, "metric of generated text, computed with INFER"),
        ("run", {"infer_eval": True}, "INFER_EVAL = True .* tiny_copy has none: set INFER_EVAL to"),
        ("run", {"initial_checkpoint_path": "/no/such/run"}, "/no/such/run"),
        ("data", {"data_streams": 3}, "batch size 8 does not divide over 3 streams"),
        ("run", {"model_dir": "gs://mounted//x"}, "MODEL_DIR .* without '//'"),
        ("run", {"model_dir": "/proc/run"}, "MODEL_DIR '/proc/run' cannot be written"),
        ("run", {"num_microbatches": 8}, "batch size 8 does not divide .* 2 devices and 8 micro"),
        ("model", {"num_embeddings": 128}, "128 rows; set NUM_EMBEDDINGS to 1100 or more$"),
        ("mesh", {"data": 8, "expert": 4}, "32"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    config, tmp_path, part, changes, message
):
    with pytest.raises(UserError, match=message):
        prepare(config.replace(part, **changes))
    assert list(tmp_path.iterdir()) == []


def test_slices_are_checked_without_their_devices(config):
    def devices(*shape):
        return AbstractMesh(shape, AXES, axis_types=(AxisType.Auto,) * 3)

    check_for_slices(config.replace("model", group_size=32), devices(1, 4, 1))
    many = dataclasses.replace(config, mesh=MeshConfig(64, 4, 1))
    with pytest.raises(UserError, match="does not divide over data x expert = 256 devices"):
        check_for_slices(many, devices(64, 4, 1))
    split = dataclasses.replace(config, mesh=MeshConfig(2, 4, 1, fully_sharded_weights=True))
    split = split.replace("model", group_size=16)
    slices = [check_for_slices(split, devices(2, 4, 1), slices) for slices in (1, 2)]
    whole = check_for_slices(split.replace("mesh", fully_sharded_weights=False), devices(2, 4, 1))
    assert slices[0] < slices[1] < whole  # between slices no weights are split
    assert jax.device_count() == 8, "and this machine has no 256 devices"
