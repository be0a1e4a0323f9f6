"""The teacher that a run is distilled from: its checkpoint, checked, and its parameters."""

import dataclasses
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from switch_jax.checkpointing import find_checkpoint
from switch_jax.checkpointing.read_only import check_parameters, load_parts
from switch_jax.config import Config, ModelConfig
from switch_jax.conversion.teacher_weights import TeacherWeights, in_words
from switch_jax.data.checks import check_vocabularies_of_run
from switch_jax.errors import UserError
from switch_jax.paths import local_path
from switch_jax.run_folder import RunFolder, read_run_json
from switch_jax.runtime.processes import run_on_all
from switch_jax.train_step.state import abstract_model


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained model.

    Attributes:
      checkpoint: its folder.
      model: its config.
      parameters: `ShapeDtypeStruct`s on the run's mesh.
    """

    checkpoint: Path
    model: ModelConfig
    parameters: Any

    def load(self) -> Any:
        """Its parameters, nested dict of float32 arrays on the mesh.

        Raises:
          UserError: the checkpoint cannot be read.
        """
        return load_parts(self.checkpoint, {"parameters": self.parameters})["parameters"]

    def load_for(self, weights: TeacherWeights) -> Any:
        """The part of its parameters that a student starts with; {} where it takes none."""
        needed = weights.needed(self.parameters)
        if not needed:  # Orbax reads no empty tree
            return {}
        return load_parts(self.checkpoint, {"parameters": needed})["parameters"]


def find_teacher(config: Config, mesh: Mesh) -> Teacher | None:
    """The teacher of a run, checked before anything is compiled; None where it has none.

    Raises:
      UserError: TEACHER_DIR has no checkpoint, or none of that step; its model has another
        vocabulary or does not fit the mesh; or it is the run's own folder.
    """
    distillation, folder = config.distillation, config.distillation.teacher_dir
    if folder is None:
        return None
    if config.teacher is None:
        raise UserError(
            f"teacher_dir is {folder!r}, but the config has no `teacher`: set it to the config of "
            "the run there"
        )
    teacher_dir = run_on_all(lambda: _checked_folder(config, folder))
    step = distillation.teacher_step
    if step is None:
        step = run_on_all(lambda: _recorded_step(config))
    checkpoint = find_checkpoint(teacher_dir, step)
    parameters = abstract_model(config.teacher.model, config.mesh, mesh)
    check_parameters(checkpoint, parameters, "the config.gin of TEACHER_DIR is of another model")
    return Teacher(checkpoint, config.teacher.model, parameters)


def describe_teacher(config: Config, teacher: Teacher) -> str:
    """What the log says of the part that the teacher has in the loss."""
    soft, temperature = config.distillation.fraction_soft, config.distillation.temperature
    if not soft:
        return f"no part of the loss comes from the teacher, {teacher.checkpoint}"
    return (
        f"distilling {teacher.checkpoint}: its probabilities make up {soft:g} of the loss, at "
        f"temperature {temperature:g}"
    )


def describe_start(config: Config, teacher: Teacher) -> list[str]:
    """Which tensors a run takes from its teacher when it starts, and which it does not."""
    weights = TeacherWeights(config.model, teacher.model)
    taken, drawn = len(weights.taken), len(weights.drawn)
    return [
        f"starting from the teacher's weights: {taken} of {taken + drawn} tensors are taken from "
        f"{teacher.checkpoint}, {drawn} are drawn",
        f"taken: {in_words(weights.taken) or 'none'}",
        f"drawn: {in_words(weights.drawn) or 'none'}",
    ]


def _checked_folder(config: Config, folder: str) -> Path:
    """TEACHER_DIR on this machine: another run's, with a checkpoint and the same vocabulary."""
    teacher_dir = local_path(folder, "TEACHER_DIR").absolute()
    if teacher_dir.resolve() == local_path(config.run.model_dir, "MODEL_DIR").resolve():
        raise UserError(
            f"TEACHER_DIR {folder!r} is MODEL_DIR itself: write another MODEL_DIR for the student"
        )
    if not RunFolder(teacher_dir).checkpoint_steps():
        raise UserError(
            f"TEACHER_DIR {folder!r} has no checkpoint: give the MODEL_DIR of a run that has saved "
            "one"
        )
    check_vocabularies_of_run(teacher_dir, config.data, lambda: config.teacher or config)
    return teacher_dir


def _recorded_step(config: Config) -> int | None:
    """The step of the teacher that a run began with, if it has a checkpoint to go on from."""
    own = RunFolder.local(config.run.model_dir)
    if not own.checkpoint_steps():
        return None
    recorded = Path(read_run_json(own).value.get("teacher_checkpoint") or "").name
    return int(recorded) if recorded.isdecimal() else None
