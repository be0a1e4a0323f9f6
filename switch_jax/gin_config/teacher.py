"""The config of the run that a model is distilled from."""

import dataclasses

from switch_jax.config import Config
from switch_jax.run_folder import RunFolder, read_run_config
from switch_jax.storage import storage_path
from switch_jax.utils.errors import UserError


def with_teacher(config: Config) -> Config:
    """The config with that of its teacher's run, if any; UserError where that cannot be read."""
    distillation = config.distillation
    if distillation.teacher_dir is None:
        return config
    folder = RunFolder(storage_path(distillation.teacher_dir, "TEACHER_DIR"))
    teacher = read_run_config(folder)
    if teacher is None:
        raise UserError(
            f"TEACHER_DIR {distillation.teacher_dir!r} is not the folder of a run: it has no "
            f"{folder.config_json.name}"
        )
    fields = [stack.group_size_field for stack in teacher.model.stacks]
    changes = {field: getattr(distillation, f"teacher_{field}") for field in fields}
    changes["gpu_attention"] = config.model.gpu_attention
    changed = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(config, teacher=teacher.replace("model", **changed))
