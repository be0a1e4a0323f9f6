"""A run that is distilled from another: its start, its end, and what is refused."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from switch_jax import gin_config
from switch_jax.config import DistillationConfig
from switch_jax.gin_config.teacher import with_teacher
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.trainer.start.teacher import find_teacher
from switch_jax.trainer.start.warm_start import describe_start
from switch_jax.trainer.train import train
from switch_jax.utils.errors import UserError
from tests.trainer.tiny_runs import (
    DATA,
    DENSE,
    FAST,
    IMPATIENT,
    MODEL,
    bits,
    config_of,
    first_state,
    records_of,
    start_of,
)


def _config(folder, steps, model=DENSE, teacher=None, mesh=(1, 1, 1), data=DATA, **distillation):
    periods = {"log_period": 1, "eval_period": 100, "eval_steps": 1, "checkpoint_period": 1}
    parts = {"distillation": DistillationConfig(**distillation), "teacher": teacher}
    parts |= {"optimizer": FAST, "guard": IMPATIENT}
    return config_of(folder, steps, mesh, model, data, **periods, **parts)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A run of two steps of a model with experts: its config, and its final parameters."""
    config = _config(tmp_path_factory.mktemp("teacher"), 2, MODEL)
    return config, jax.device_get(train(config).parameters)


def _student(folder, steps, teacher, **changes):
    changes = {"teacher_dir": teacher.run.model_dir} | changes
    return _config(folder, steps, teacher=teacher, **changes)


@pytest.fixture(scope="module")
def student(teacher, tmp_path_factory):
    """Two steps of a student that starts from the teacher: its folder, and its parameters."""
    folder = tmp_path_factory.mktemp("student")
    state = train(_student(folder, 2, teacher[0]))
    return folder, jax.device_get(state.parameters)


def _found(config):
    return find_teacher(config, make_mesh(config.mesh))


def test_the_teacher_has_the_parameters_of_its_newest_checkpoint(teacher, tmp_path):
    found = _found(_student(tmp_path, 2, teacher[0]))
    assert found.checkpoint.name == "2" and bits(found.load()) == bits(teacher[1])


def test_both_parts_of_the_loss_are_recorded(student):
    first, _ = records_of(student[0], "train")
    hard, soft, z_loss = (first[n] for n in ("cross_entropy", "soft_cross_entropy", "z_loss"))
    np.testing.assert_allclose(first["loss"], 0.75 * hard + 0.25 * soft + z_loss, rtol=1e-5)
    assert abs(soft - hard) > 0.01
    (evaluation, _) = records_of(student[0], "eval")
    assert evaluation["neg_log_perplexity"] == -evaluation["cross_entropy"]


def test_an_interrupted_run_goes_on_with_the_checkpoint_of_the_teacher_that_it_began_with(
    teacher, student, tmp_path, capsys
):
    config = teacher[0]
    other = tmp_path / "teacher"
    shutil.copytree(config.run.model_dir, other)
    # It goes on meanwhile.
    shutil.copytree(other / "checkpoints" / "1", other / "checkpoints" / "7")
    shutil.copytree(student[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "2")  # as if it had ended after the first step
    state = train(_student(tmp_path / "run", 2, config, teacher_dir=str(other)))
    told = capsys.readouterr().out
    assert "continuing from the checkpoint of step 1" in told
    before = f"{config.run.model_dir}/checkpoints/2"
    assert f"the run began with another checkpoint of a teacher, {before}" in told
    assert bits(state.parameters) == bits(student[1])
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())["teacher_checkpoint"]
    assert recorded == str(other / "checkpoints" / "2")


def test_a_run_that_goes_on_with_a_damaged_run_json_asks_for_the_step(teacher, tmp_path):
    (tmp_path / "run.json").write_text("{")
    config = _student(tmp_path, 2, teacher[0])
    assert _found(config).checkpoint.name == "2"  # a new run
    shutil.copytree(f"{teacher[0].run.model_dir}/checkpoints/1", tmp_path / "checkpoints" / "1")
    _refused(r"run\.json is damaged.* is not known: set TEACHER_STEP to it", config)
    (tmp_path / "run.json").unlink()
    _refused(r"run\.json is not there.* is not known: set TEACHER_STEP to it", config)
    config = config.replace("distillation", teacher_step=1)
    assert _found(config).checkpoint.name == "1"


def test_a_run_that_goes_on_with_a_teacher_that_lacks_its_step_asks_for_one(teacher, tmp_path):
    (tmp_path / "run.json").write_text('{"teacher_checkpoint": "/other/checkpoints/7"}')
    shutil.copytree(f"{teacher[0].run.model_dir}/checkpoints/1", tmp_path / "checkpoints" / "1")
    _refused("no checkpoint of step 7: there are 1, 2", _student(tmp_path, 2, teacher[0]))


def test_a_student_starts_with_the_teachers_weights_on_any_mesh(
    teacher, code_as_by_default, tmp_path
):
    config = teacher[0]
    student = _student(tmp_path, 2, config, mesh=(2, 2, 2))
    states = (first_state(c).parameters for c in (student, _config(tmp_path, 2)))
    start, drawn, theirs = (flatten_dict(p, sep="/") for p in (*states, teacher[1]))
    for name, array in start.items():
        expected = drawn if "feed_forward/" in name else theirs
        assert bits(array) == bits(expected[name]), name
    found = start_of(student)
    told = describe_start(student, found)
    assert told[0] == f"starting from the parameters of {config.run.model_dir}/checkpoints/2"
    assert told[2] == "drawn at random: decoder/mlp 1,024, encoder/mlp 1,024"  # 2 x 16 x 32
    assert not any("feed_forward/" in name for name in found.parameters)  # none is read


def test_a_student_may_start_without_them(teacher, tmp_path):
    assert start_of(_student(tmp_path, 2, teacher[0], initialize_from_teacher=False)) is None


def test_a_student_of_other_sizes_takes_nothing(teacher, tmp_path):
    other = dataclasses.replace(DENSE, embed_dim=24, num_heads=3)
    config = _student(tmp_path, 2, teacher[0], model=other)
    found = start_of(config)
    assert found.load() == {"parameters": {}}
    assert describe_start(config, found)[1] == "taken: none"


def test_what_is_done_with_a_student_afterwards_does_without_the_teacher(student):
    assert gin_config.read([str(student[0] / "config.gin")]).config.teacher is None


def test_a_student_starts_from_the_teacher_or_from_another_checkpoint(teacher):
    student = _student("new", 2, teacher[0])
    with pytest.raises(UserError, match="cannot start both from INITIAL_CHECKPOINT_PATH = '/oth"):
        student.replace("run", initial_checkpoint_path="/other")
    student = student.replace("distillation", initialize_from_teacher=False)
    assert student.replace("run", initial_checkpoint_path="/other")


def _refused(message, config):
    with pytest.raises(UserError, match=message):
        _found(config)


def test_what_cannot_teach_is_refused_before_anything_is_compiled(teacher, tmp_path):
    config, new = teacher[0], tmp_path / "new"
    with pytest.raises(UserError, match="TEACHER_DIR '/absent' is not the folder of a run: it has"):
        with_teacher(_config(new, 2, teacher_dir="/absent"))
    with pytest.raises(UserError, match="NUM_EMBEDDINGS = 1152, and the model 1280"):
        _student(new, 2, config, model=dataclasses.replace(DENSE, num_embeddings=1280))
    _refused(r"no checkpoint of step 9: there are 1, 2", _student(new, 2, config, teacher_step=9))
    _refused("is MODEL_DIR itself", _student(config.run.model_dir, 2, config))
    bytes_ = dataclasses.replace(DATA, vocabulary="byte")
    _refused("have another vocabulary .* was trained with", _student(new, 2, config, data=bytes_))
    other = config.replace("model", mlp_dim=48)
    _refused("is of another model: .*wi_0 .*; take its run's config", _student(new, 2, other))
    odd = _student(new, 2, config, mesh=(1, 1, 8))
    _refused(r"does not divide over the mesh axis 'model'", odd)
