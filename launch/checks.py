"""What is looked at before a job starts on machines that cost money, without them."""

from collections.abc import Mapping
from typing import Any

from jax.sharding import AbstractMesh, AxisType

from switch_jax.errors import UserError
from switch_jax.hardware import Slice
from switch_jax.partitioning.mesh import AXES, mesh_shape
from switch_jax.training.checks import check_elsewhere


def check(parts: Mapping[str, Any], hardware: Slice) -> None:
    """Checks a run against the slices that it shall have, and where it reads and writes.

    Whether data and bucket can be read is seen by the hosts in their first minute: they exit with
    code 2, after which nothing is started again.

    Args:
      parts: as `cli.gin_config.build` returns them.
      hardware: the slices.

    Raises:
      UserError: what does not fit, with the numbers.
    """
    run, mesh = parts["run"], parts["mesh"]
    _in_bucket("MODEL_DIR", run.model_dir)
    if run.initial_checkpoint is not None:
        _in_bucket("INITIAL_CHECKPOINT_PATH", run.initial_checkpoint)
    shape = mesh_shape(mesh, hardware.devices, hardware.count, f"{hardware.name} TPU")
    devices = AbstractMesh(shape, AXES, axis_types=(AxisType.Auto,) * 3)
    checked = {name: parts[name] for name in ("run", "model", "data", "mesh", "optimizer")}
    check_elsewhere(**checked, devices=devices)


def check_fits(parts: Mapping[str, Any], hardware: Slice) -> str:
    """Compiles the training step for the slices; takes some minutes.

    Returns:
      What to tell: the memory that it needs, and the speed to expect.

    Raises:
      UserError: it does not fit, or libtpu is missing.
    """
    from switch_jax.planning.plan import make_plan

    plan = make_plan(hardware, **parts)
    memory = f"{plan.hbm_bytes / 2**30:.1f} of {plan.hbm_limit_bytes / 2**30:.1f} GiB a chip"
    if not plan.fits:
        raise UserError(
            f"the step does not fit on {hardware.name}: {memory}; `switch_jax plan` with the same "
            "gin files looks for what would (--skip_plan starts it even so)"
        )
    return f"the step fits on {hardware.name}: {memory}, {plan.tokens_per_second:,.0f} tokens/s"


def _in_bucket(name: str, path: str) -> None:
    bucket = path.removeprefix("gs://").partition("/")[0]
    if not path.startswith("gs://") or not bucket:
        raise UserError(
            f"{name} = {path!r} is a folder of one machine, and the hosts of a TPU slice share "
            "none: write gs://BUCKET/FOLDER"
        )
