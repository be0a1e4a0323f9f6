"""The teacher that a run is distilled from: its checkpoint, checked, and its parameters."""

import dataclasses
from typing import Any

from etils import epath
from jax.sharding import Mesh

from switch_jax.checkpointing import find_checkpoint
from switch_jax.checkpointing.read_only import check_part, load_parts
from switch_jax.config import Config, ModelConfig
from switch_jax.conversion.teacher_weights import TeacherWeights, in_words
from switch_jax.data.checks import check_vocabularies_of_run
from switch_jax.errors import UserError
from switch_jax.run_folder import RunFolder, read_run_json
from switch_jax.runtime.processes import run_on_all
from switch_jax.storage import resolved, storage_path
from switch_jax.train_step.state import abstract_model


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained model.

    Attributes:
      checkpoint: its folder.
      model: its config.
      parameters: `ShapeDtypeStruct`s on the run's mesh.
      began_with: the checkpoint that a continued run began with, as its run.json says; None: the
        run is new, or had no teacher.
    """

    checkpoint: epath.Path
    model: ModelConfig
    parameters: Any
    began_with: epath.Path | None = None

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
        vocabulary or does not fit the mesh; it is the run's own folder; or a run goes on, and its
        run.json does not tell the step.
    """
    folder = config.distillation.teacher_dir
    if folder is None:
        return None
    if config.teacher is None:
        raise UserError(
            f"teacher_dir is {folder!r}, but the config has no `teacher`: set it to the config of "
            "the run there"
        )
    teacher_dir = run_on_all(lambda: _checked_folder(config, folder))
    began_with = run_on_all(lambda: _recorded_checkpoint(config))
    step = run_on_all(lambda: _chosen_step(config, teacher_dir, began_with))
    checkpoint = find_checkpoint(teacher_dir, step)
    parameters = abstract_model(config.teacher.model, config.mesh, mesh)
    check_part(checkpoint, "parameters", parameters)
    return Teacher(checkpoint, config.teacher.model, parameters, began_with)


def describe_teacher(config: Config, teacher: Teacher) -> list[str]:
    """What the log says of the teacher's part in the loss, and of a change of teacher."""
    soft, temperature = config.distillation.fraction_soft, config.distillation.temperature
    if soft:
        part = (
            f"distilling {teacher.checkpoint}: its probabilities make up {soft:g} of the loss, at "
            f"temperature {temperature:g}"
        )
    else:
        part = f"no part of the loss comes from the teacher, {teacher.checkpoint}"
    if teacher.began_with in (None, teacher.checkpoint):
        return [part]
    return [part, f"the run began with another checkpoint of a teacher, {teacher.began_with}"]


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


def _checked_folder(config: Config, folder: str) -> epath.Path:
    """TEACHER_DIR on this machine: another run's, with a checkpoint and the same vocabulary."""
    teacher_dir = storage_path(folder, "TEACHER_DIR")
    if resolved(teacher_dir) == resolved(storage_path(config.run.model_dir, "MODEL_DIR")):
        raise UserError(
            f"TEACHER_DIR {folder!r} is MODEL_DIR itself: write another MODEL_DIR for the student"
        )
    if not RunFolder(teacher_dir).checkpoint_steps():
        raise UserError(
            f"TEACHER_DIR {folder!r} has no checkpoint: give the MODEL_DIR of a run that has saved "
            "one"
        )
    check_vocabularies_of_run(teacher_dir, config.data)
    return teacher_dir


def _recorded_checkpoint(config: Config) -> epath.Path | None:
    """The teacher's checkpoint that a run began with, if it has one of its own to go on from."""
    own = RunFolder.at(config.run.model_dir)
    if not own.checkpoint_steps():
        return None
    facts, left_out = read_run_json(own)
    is_known = "teacher_checkpoint" in facts or config.distillation.teacher_step is not None
    if left_out and not is_known:
        raise UserError(
            f"{left_out}; so the step of the teacher that the run began with is not known: set "
            "TEACHER_STEP to it"
        )
    recorded = facts.get("teacher_checkpoint")
    return None if recorded is None else epath.Path(recorded)


def _chosen_step(
    config: Config, teacher_dir: epath.Path, began_with: epath.Path | None
) -> int | None:
    """TEACHER_STEP, or else the step that the run began with; None: the newest."""
    step = config.distillation.teacher_step
    if step is not None or began_with is None:
        return step
    steps = {str(step): step for step in RunFolder(teacher_dir).checkpoint_steps()}
    if began_with.name not in steps:
        raise UserError(
            f"TEACHER_DIR {config.distillation.teacher_dir!r} has no checkpoint of step "
            f"{began_with.name}: there are {', '.join(steps)}; the run began with this step of its "
            f"teacher, {began_with} (run.json): set TEACHER_STEP to take another"
        )
    return steps[began_with.name]
