"""The TPU's compiler on a machine without a TPU: libtpu, a topology's devices, a compiled step."""

import atexit
import dataclasses
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies

from switch_jax.errors import UserError
from switch_jax.hardware import Slice
from switch_jax.planning import hlo, schedule

_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",  # no questions to a metadata server that is not there
    "TPU_ACCELERATOR_TYPE": "v5p-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# Forms of the verdict; the latter comes where one kind of memory alone is too much.
_TOO_MUCH = (
    r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT]) hbm",
    r"required for [\w ]+ \(([\d.]+)([KMGT])\) exceeds available HBM \(([\d.]+)([KMGT])\)",
)
_schedules: Path | None = None


@dataclasses.dataclass(frozen=True)
class OutOfMemory:
    """The compiler's verdict that a program does not fit.

    Attributes:
      needed, limit: bytes of a device's memory; `needed` may be that of the temporaries alone.
      seconds: of compilation.
      message: the compiler's first line.
    """

    needed: int
    limit: int
    seconds: float
    message: str


@dataclasses.dataclass(frozen=True)
class Program:
    """A program compiled for one device of a slice.

    Attributes:
      operations: what a run executes; see `hlo.operations`.
      scheduled: cycles by name of operation, from the schedule; see `schedule`.
      arguments, outputs, aliased, temporaries, code: bytes of a device's memory.
      seconds: of compilation.
    """

    operations: list[hlo.Operation]
    scheduled: dict[str, int]
    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    code: int
    seconds: float

    @property
    def peak(self) -> int:
        """Bytes that must be there at once; outputs that reuse arguments count once."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code


def devices(hardware: Slice) -> list[Any]:
    """The slice's devices, to lay a mesh over and to compile for.

    Raises:
      UserError: libtpu is missing, or has no such slice.
    """
    _prepare()
    try:
        topology = topologies.get_topology_desc(
            platform="tpu", topology_name=hardware.compiler_name, **_options(hardware)
        )
    except Exception as error:  # the plugin's own exception types are not public
        first_line = str(error).strip().split("\n")[0]
        raise UserError(f"libtpu has no slice {hardware.compiler_name}: {first_line}") from error
    return list(topology.devices)


def _options(hardware: Slice) -> dict[str, Any]:
    """What libtpu has to be told of a slice beside its name."""
    options: dict[str, Any] = {}
    if hardware.count > 1:
        options["num_slices"] = hardware.count
    if hardware.generation.name == "v4":
        options["chip_config_name"] = "megacore"  # as JAX runs it: a chip is one device
    if hardware.shape == (1, 1):
        options["chips_per_host_bounds"] = (1, 1, 1)  # by default a host has 2 x 2 chips
    return options


def compile_program(lowered: jax.stages.Lowered) -> Program | OutOfMemory:
    """Compiles for the devices that the program's shardings name, and reads what came out."""
    folder = _prepare()
    _empty(folder)
    start = time.monotonic()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        return _out_of_memory(error, time.monotonic() - start)
    seconds = time.monotonic() - start
    memory, text = compiled.memory_analysis(), compiled.as_text()
    if memory is None or text is None:
        raise RuntimeError("this compiler says nothing of memory, or does not print its program")
    operations = hlo.operations(text)
    unknown = {o.name for o in operations if o.is_timed and o.cycles is None}
    result = Program(
        operations=operations,
        scheduled=schedule.cycles_by_operation(folder, unknown),
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        aliased=memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        seconds=seconds,
    )
    _empty(folder)
    return result


def _prepare() -> Path:
    """Sets what libtpu reads when it is loaded; returns the folder that it writes schedules to.

    Raises:
      UserError: libtpu is not installed.
    """
    global _schedules
    if _schedules is not None:
        return _schedules
    try:
        import libtpu  # noqa: F401
    except ImportError:
        raise UserError(
            "planning needs the TPU's compiler, libtpu, and it is not installed: "
            f"{sys.executable} -m pip install 'switch_jax[tpu]', or in the pinned set-up of a "
            "checkout: .venv/bin/pip install -c requirements.txt 'jax[tpu]'"
        ) from None
    _schedules = Path(tempfile.mkdtemp(prefix="switch_jax_plan_"))
    atexit.register(shutil.rmtree, _schedules, ignore_errors=True)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    flags = (
        f"--xla_jf_dump_to={_schedules} --xla_jf_dump_llo_text=true "
        "--xla_jf_dump_llo_pass_label_regex=final_bundles"
    )
    os.environ["LIBTPU_INIT_ARGS"] = f"{os.environ.get('LIBTPU_INIT_ARGS', '')} {flags}"
    jax.config.update("jax_platforms", "cpu")
    return _schedules


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _out_of_memory(error: Exception, seconds: float) -> OutOfMemory:
    """Raises the error itself where it is another."""
    sizes = next(filter(None, (re.search(form, str(error)) for form in _TOO_MUCH)), None)
    if not sizes:
        raise error
    needed, limit = (
        int(float(sizes.group(i)) * 1024 ** (1 + "KMGT".index(sizes.group(i + 1)))) for i in (1, 3)
    )
    return OutOfMemory(needed, limit, seconds, str(error).strip().split("\n")[0])
