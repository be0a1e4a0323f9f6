"""A run is checked and prepared once, before anything is written or compiled."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh

from switch_jax.config import Config
from switch_jax.data.catalogue.checks import (
    check_examples,
    check_splits,
    check_streams,
    check_tasks,
    check_vocabulary,
    open_tasks,
)
from switch_jax.data.catalogue.configured_tasks import OpenedTasks, all_tasks, vocabulary_is_here
from switch_jax.data.catalogue.registry import mixing_rates
from switch_jax.evaluation.best_evaluation import check_metric
from switch_jax.evaluation.task_metrics import check_metrics
from switch_jax.monitoring.wandb_run import import_wandb
from switch_jax.partitioning.mesh import make_mesh, readers
from switch_jax.partitioning.placing import device_bytes
from switch_jax.run_folder import RunFolder, check_run_folder, read_run_config
from switch_jax.runtime.multihost import gather, run_on_all, run_on_first
from switch_jax.storage import storage_path
from switch_jax.train_step.microbatches import check_batch
from switch_jax.train_step.state import TrainState, abstract_model, abstract_state
from switch_jax.trainer.start.resume import ResumePoint, RunFiles, find_resume_point
from switch_jax.trainer.start.teacher import Teacher, find_teacher
from switch_jax.trainer.start.warm_start import Start, find_start
from switch_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What a checked run consists of on this machine.

    `before` is the config of the run that is in its folder, None: there is none; `saved` what that
    run goes on with, None: it has no checkpoint.

    Attributes:
      state: shapes, dtypes and shardings of the training state on the mesh.
      teacher: what it is distilled from; None: it is not.
      start: the weights that it begins with; None: it starts from scratch, or goes on with `saved`.
      validation_tasks: None without evaluation.
      files: digests of the tasks' files, the same on all hosts.
      warnings: as `check_run` returns them.
    """

    config: Config
    mesh: Mesh
    state: TrainState
    before: Config | None
    saved: ResumePoint | None
    teacher: Teacher | None
    start: Start | None
    train_tasks: OpenedTasks
    validation_tasks: OpenedTasks | None
    files: RunFiles
    warnings: Sequence[str]

    @property
    def changes(self) -> list[str]:
        """What this start changes in the config of the run in its folder."""
        return [] if self.before is None else self.config.changes_since(self.before)


def prepare(config: Config, change_task: bool = False) -> Prepared:
    """Checks a run on this machine, and opens what it needs. Call it once a start.

    With `change_task` it may have another MIXTURE_OR_TASK_NAME, or other data files, than the run
    in MODEL_DIR. Raises UserError with the numbers that do not fit, or where MODEL_DIR cannot be
    written or has another model.
    """
    check_paths(config)
    mesh = make_mesh(config.mesh)  # starts JAX, with as many CPU devices as the mesh needs
    train_tasks, validation_tasks = run_on_all(lambda: open_data(config))
    run_on_all(lambda: check_run_folder(config.run.model_dir))
    if config.run.wandb_project is not None:
        run_on_first(import_wandb)
    check_batch(config, mesh.shape)
    warnings = check_streams(config, readers(jax.process_count(), mesh.shape))
    warnings += check_vocabulary(config)
    state = abstract_state(config, mesh)
    files = RunFiles(
        _files_digests(train_tasks),
        None if validation_tasks is None else _files_digests(validation_tasks),
    )
    before = run_on_all(lambda: read_run_config(RunFolder.at(config.run.model_dir)))
    saved = find_resume_point(config, state, files, before, change_task)
    teacher = find_teacher(config, mesh)
    start = find_start(config, mesh, teacher)
    return Prepared(
        config, mesh, state, before, saved, teacher, start, train_tasks, validation_tasks, files,
        warnings,
    )  # fmt: skip


def _files_digests(opened: OpenedTasks) -> dict[str, str]:
    """Of each task. Raises UserError where hosts have others: they would read other examples."""
    own = opened.files_digests
    first, *hosts = gather(own)
    for index, host in enumerate(hosts, 1):
        if host != first:
            raise UserError(
                f"process {index} has other data files than process 0, by their names and sizes: "
                "give all hosts the same files"
            )
    return own


def check_paths(config: Config) -> None:
    """Raises UserError where MODEL_DIR, INITIAL_CHECKPOINT_PATH or TEACHER_DIR can be no path."""
    storage_path(config.run.model_dir, "MODEL_DIR")
    if config.run.initial_checkpoint_path is not None:
        storage_path(config.run.initial_checkpoint_path, "INITIAL_CHECKPOINT_PATH")
    if config.distillation.teacher_dir is not None:
        storage_path(config.distillation.teacher_dir, "TEACHER_DIR")


def open_data(config: Config) -> tuple[OpenedTasks, OpenedTasks | None]:
    """Opens the tasks that a run trains on, and those that it is validated on, if it is.

    Raises UserError where a task, split, file or rate is missing, or a setting does not fit.
    """
    train, stacks = open_tasks(config.data), config.model.stacks
    validation = None
    if config.run.eval_period is not None:
        validation = open_tasks(dataclasses.replace(config.data, split="validation"))
        own = check_metrics(validation, stacks) if config.run.infer_eval else None
        if own == {}:
            raise UserError(
                f"INFER_EVAL = True evaluates by the tasks' own metrics, and "
                f"{', '.join(validation.names)} has none: set INFER_EVAL to False"
            )
        check_metric(config.run.best_metric, validation.names, own)
    mixing_rates(config.data.mixture_or_task_name, train.tasks)  # raises where one is not known
    check_examples(train, stacks)
    check_vocabulary(config)
    return train, validation


def check_run(config: Config, readers: int) -> list[str]:
    """Checks what needs no devices, no data and no network; launch and plan call it.

    In a plan, MIXTURE_OR_TASK_NAME may be without a value. `readers` are the parts into which hosts
    split the rows of a batch. Returns warnings, one a line: what costs data or parameters, and
    cannot be changed later. Raises UserError with the numbers that do not fit.
    """
    warnings = check_streams(config, readers)
    if config.data.mixture_or_task_name == "MIXTURE_OR_TASK_NAME":
        return warnings
    check_splits(config)
    if vocabulary_is_here(config.data):
        check_tasks(all_tasks(config.data), config.data)
        warnings += check_vocabulary(config)
    return warnings


def check_for_slices(config: Config, devices: AbstractMesh, slices: int = 1) -> int:
    """Checks a run on devices that other machines have; UserError with the numbers that do not fit.

    Returns the bytes that each device holds of the state, and of a teacher that the step runs.
    """
    check_batch(config, devices.shape)
    if slices > 1:  # data splits no weights: a device holds as much as with one copy of them
        _, expert, model = devices.axis_sizes
        devices = devices.update(axis_sizes=(1, expert, model))
    held: list[Any] = [abstract_state(config, devices)]
    if config.teacher is not None:
        teacher = abstract_model(config.teacher.model, config.mesh, devices)
        if config.teacher_model is not None:  # the step runs it
            held.append(teacher)
    return device_bytes(held)
