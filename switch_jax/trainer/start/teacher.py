"""The teacher that a run is distilled from: its checkpoint, checked, and its parameters."""

import dataclasses
from typing import Any

from etils import epath
from jax.sharding import Mesh

from switch_jax.checkpointing import find_checkpoint
from switch_jax.checkpointing.read_only import check_part, load_parts
from switch_jax.config import Config, ModelConfig
from switch_jax.data.catalogue.checks import check_vocabularies_of_run
from switch_jax.run_folder import RunFolder, read_run_facts
from switch_jax.runtime.multihost import run_on_all
from switch_jax.storage import resolved, storage_path
from switch_jax.train_step.state import abstract_model
from switch_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained model: its checkpoint's folder, config, and `ShapeDtypeStruct`s on the run's mesh.

    `began_with` is the checkpoint that a continued run began with, as its run.json says; None: the
    run is new, or had no teacher.
    """

    checkpoint: epath.Path
    model: ModelConfig
    parameters: Any
    began_with: epath.Path | None = None

    def load(self) -> Any:
        """Its parameters: nested float32 arrays on the mesh; UserError: they cannot be read."""
        return load_parts(self.checkpoint, {"parameters": self.parameters})["parameters"]


def find_teacher(config: Config, mesh: Mesh) -> Teacher | None:
    """The teacher of a run, checked before anything is compiled; None where it has none.

    Raises UserError where TEACHER_DIR has no such checkpoint or is the run's own folder, its model
    has another vocabulary or does not fit the mesh, or a run goes on without knowing its step.
    """
    folder = config.distillation.teacher_dir
    if folder is None:
        return None
    assert config.teacher is not None  # see `gin_config.teacher`
    own = run_on_all(lambda: resolved(storage_path(config.run.model_dir, "MODEL_DIR")))
    if own == run_on_all(lambda: resolved(storage_path(folder, "TEACHER_DIR"))):
        raise UserError(
            f"TEACHER_DIR {folder!r} is MODEL_DIR itself: write another MODEL_DIR for the student"
        )
    began_with = run_on_all(lambda: _recorded_checkpoint(config))
    step = config.distillation.teacher_step
    if step is None and began_with is not None:
        step = int(began_with.name)
    checkpoint = find_checkpoint(folder, step)
    run_on_all(lambda: check_vocabularies_of_run(checkpoint.parent.parent, config.data))
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


def _recorded_checkpoint(config: Config) -> epath.Path | None:
    """The teacher's checkpoint that a run began with, if it has one of its own to go on from."""
    own = RunFolder.at(config.run.model_dir)
    if not own.checkpoint_steps():
        return None
    facts, problem = read_run_facts(own)
    if problem and config.distillation.teacher_step is None:
        raise UserError(
            f"{problem}; so the step of the teacher that the run began with is not known: set "
            "TEACHER_STEP to it"
        )
    recorded = facts.get("teacher_checkpoint")
    return None if recorded is None else epath.Path(recorded)
