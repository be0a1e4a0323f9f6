"""Runs the TPU compiler of libtpu without a TPU: devices of a slice, compiled programs."""

import atexit
import dataclasses
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies

from switch_jax.hardware.tpus import Slice
from switch_jax.planning import compiler_schedule, hlo
from switch_jax.utils.errors import UserError

_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",  # this machine has no metadata server
    "TPU_ACCELERATOR_TYPE": "v5p-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# Forms of the error message; the second is for one kind of memory that is too large by itself.
_OUT_OF_MEMORY = (
    r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT]) hbm",
    r"required for [\w ]+ \(([\d.]+)([KMGT])\) exceeds available HBM \(([\d.]+)([KMGT])\)",
)
_schedules: Path | None = None


@dataclasses.dataclass(frozen=True)
class OutOfMemory:
    """The compiler's report that a program does not fit in memory.

    Attributes:
      needed, limit: bytes of a device's memory; `needed` may be that of the temporaries only.
      seconds: time of compilation.
    """

    needed: int
    limit: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Program:
    """A program compiled for the devices of a slice, and the memory that it needs.

    Attributes:
      arguments, outputs, temporaries, code: bytes on a device; code is the program itself.
      aliased: bytes of outputs that reuse arguments.
      scheduled: cycles in the schedule, by name of operation; see `compiler_schedule`.
      seconds: time of compilation.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    code: int
    operations: list[hlo.Operation]
    scheduled: dict[str, int]
    seconds: float

    @property
    def peak(self) -> int:
        """The bytes of all memory; outputs that reuse arguments count once."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code


def devices(hardware: Slice) -> list[Any]:
    """Returns a slice's devices to compile for; UserError if libtpu or the slice is missing."""
    _prepare()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        topology = topologies.get_topology_desc(
            platform="tpu", topology_name=hardware.compiler_name, **_options(hardware)
        )
    except Exception as error:  # the plugin's own exception types are not public
        first_line = str(error).strip().split("\n")[0]
        raise UserError(f"libtpu has no slice {hardware.compiler_name}: {first_line}") from error
    finally:  # libtpu puts handlers of its own there, which print a stack trace
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
    return list(topology.devices)


def _options(hardware: Slice) -> dict[str, Any]:
    """Returns the options of libtpu for a slice, in addition to its name."""
    options: dict[str, Any] = {}
    if hardware.count > 1:
        options["num_slices"] = hardware.count
    if hardware.generation.name == "v4":
        options["chip_config_name"] = "megacore"  # as in JAX: a chip is one device
    if hardware.shape == (1, 1):
        options["chips_per_host_bounds"] = (1, 1, 1)  # the default is 2 x 2 chips
    return options


def compile_program(lowered: jax.stages.Lowered) -> Program | OutOfMemory:
    """Compiles for the devices of the program's shardings; Ctrl-C leaves no schedules behind."""
    folder = _prepare()
    _empty(folder)
    start = time.monotonic()
    try:
        # In a thread: this one is woken by Ctrl-C, while a compiler runs for minutes.
        compiled = ThreadPoolExecutor(1).submit(lowered.compile).result()
    except jax.errors.JaxRuntimeError as error:
        return _out_of_memory(error, time.monotonic() - start)
    except KeyboardInterrupt:
        remove_schedules()
        raise
    seconds = time.monotonic() - start
    text, memory = compiled.as_text(), compiled.memory_analysis()
    assert text is not None and memory is not None  # libtpu has both
    operations = hlo.operations(text)
    unknown = {o.name for o in operations if o.is_timed and o.cycles is None}
    result = Program(
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        aliased=memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        operations=operations,
        scheduled=compiler_schedule.cycles_by_operation(folder, unknown),
        seconds=seconds,
    )
    _empty(folder)
    return result


def _prepare() -> Path:
    """Sets libtpu's options before it is loaded; returns the folder of its schedules."""
    global _schedules
    if _schedules is not None:
        return _schedules
    try:
        import libtpu  # noqa: F401
    except ImportError:
        raise UserError(
            "planning needs the TPU's compiler, libtpu, and it is not installed: "
            f"{sys.executable} -m pip install -c requirements.txt 'jax[tpu]', in the checkout"
        ) from None
    _schedules = Path(tempfile.mkdtemp(prefix="switch_jax_plan_"))
    atexit.register(remove_schedules)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    flags = (
        f"--xla_jf_dump_to={_schedules} --xla_jf_dump_llo_text=true "
        "--xla_jf_dump_llo_pass_label_regex=final_bundles"
    )
    os.environ["LIBTPU_INIT_ARGS"] = f"{os.environ.get('LIBTPU_INIT_ARGS', '')} {flags}"
    jax.config.update("jax_platforms", "cpu")
    return _schedules


def remove_schedules() -> None:
    """Removes what the compiler wrote, when Python ends or a compilation is given up."""
    if _schedules is not None and _schedules.is_dir():
        # Under another name first, so that a compiler that goes on finds no folder to write to.
        shutil.rmtree(_schedules.rename(f"{_schedules}_"), ignore_errors=True)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(exist_ok=True)


def _out_of_memory(error: Exception, seconds: float) -> OutOfMemory:
    """Reads the error message; raises the error again if it is a different one."""
    sizes = next(filter(None, (re.search(form, str(error)) for form in _OUT_OF_MEMORY)), None)
    if not sizes:
        raise error
    needed, limit = (
        int(float(sizes.group(i)) * 1024 ** (1 + "KMGT".index(sizes.group(i + 1)))) for i in (1, 3)
    )
    return OutOfMemory(needed, limit, seconds)
