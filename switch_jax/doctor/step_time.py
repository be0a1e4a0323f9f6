"""The training step of a config: its time, by part, beside what was planned."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from switch_jax.config import Config
from switch_jax.data.batch import Batch, empty_batch
from switch_jax.doctor.checks import Check, Finding, Verdict
from switch_jax.doctor.speed import Machine
from switch_jax.doctor.steps import Step
from switch_jax.errors import UserError, has_no_room
from switch_jax.hardware import slice_of
from switch_jax.model.flops import parameter_count
from switch_jax.partitioning.mesh import batch_shards
from switch_jax.planning.cpu_plan import measured_exchanges, seconds_by_speeds
from switch_jax.planning.hlo import Operation, operations
from switch_jax.planning.measured import EXCHANGES
from switch_jax.planning.trace import operation_seconds, seconds_by_part
from switch_jax.runtime.processes import gather, is_first
from switch_jax.train_step.flops import step_flops
from switch_jax.train_step.microbatches import check_batch
from switch_jax.units import count

SLOW = 1.5  # times what is planned
_SECONDS, _ROUNDS, _TRACED = 1.0, 5, 3  # of a round of steps; rounds; steps in the trace
_SMALLEST_SHARE = 0.1  # of a step that a trace has to explain


@dataclasses.dataclass(frozen=True)
class Timed:
    """A step that was measured.

    Attributes:
      seconds: of the fastest round of steps, without what the profiler takes.
      parts: seconds by part of the model, exchanges too; they add up to `seconds`. Empty where the
        trace does not say which operation took how long.
      operations: of the program.
      compile_seconds: of the program.
    """

    seconds: float
    parts: Mapping[str, float]
    operations: list[Operation]
    compile_seconds: float


def step_time_checks(
    config: Config, text: str, machine: Machine, *, shrink: bool = False
) -> Iterator[Check]:
    """The step of the config and, where it has experts, of the dense model beside it.

    Args:
      config: of the run.
      text: the same as a gin file.
      machine: its devices, on the mesh of `jax.set_mesh`.
      shrink: halve BATCH_SIZE until a step fits in memory.
    """
    checked = functools.partial(_step, text=text, machine=machine, shrink=shrink)
    yield Check("step", functools.partial(checked, config, {}), is_long=True)
    if config.model.num_experts:

        def of_dense() -> Finding:
            try:
                dense = config.replace("model", num_experts=0)
            except UserError:
                text = "this config has macros that no dense model has"
                return Finding(Verdict.SKIPPED, text)
            return checked(dense, {"NUM_EXPERTS": 0})

        yield Check("step of the dense model", of_dense, is_long=True)


def measure_step(config: Config, mesh: Mesh) -> Timed:
    """Compiles and runs the training step on random tokens; within `jax.set_mesh`.

    Raises:
      UserError: the batch does not divide over the mesh.
    """
    check_batch(config, mesh.shape)
    step = Step.of(config, mesh, random_batch(config))
    state, _ = jax.block_until_ready(step.run())

    def steps(number: int) -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(number):
            state, _ = step.run(state)
        jax.block_until_ready(state)
        return (time.perf_counter() - start) / number

    steps(1)
    number = max(1, int(_SECONDS / max(gather(steps(1)))))  # the same on all processes
    # Other programs make steps slower, never faster.
    seconds = min(steps(number) for _ in range(_ROUNDS))
    with tempfile.TemporaryDirectory() as folder:
        jax.profiler.start_trace(folder)
        steps(_TRACED)
        jax.profiler.stop_trace()
        taken = operation_seconds(Path(folder))
    found = operations(step.compiled.as_text() or "")
    parts = seconds_by_part(taken, found)
    whole = sum(parts.values())
    if whole / _TRACED / len(jax.local_devices()) < _SMALLEST_SHARE * seconds:
        parts = {}
    parts = {part: seconds * value / whole for part, value in parts.items()}
    return Timed(seconds, parts, found, step.compile_seconds)


def random_batch(config: Config) -> Batch:
    """Rows of random tokens, of one example each."""
    rng = np.random.default_rng(0)
    batch = empty_batch(config.run.batch_size, config.data.task_feature_lengths)
    return {
        name: rng.integers(2, config.model.num_embeddings, array.shape, array.dtype)
        if name.endswith("tokens")
        else np.ones_like(array)
        for name, array in batch.items()
    }


def _step(
    config: Config,
    macros: Mapping[str, Any],
    *,
    text: str,
    machine: Machine,
    shrink: bool,
) -> Finding:
    """Of the config; `macros` are what it differs in from the text."""
    size, timed = config.run.batch_size, None
    try:
        timed = measure_step(config, machine.mesh)
    except jax.errors.JaxRuntimeError as error:
        if not has_no_room(error):
            raise
    if timed is None:  # what has failed is not in memory any more
        # While they run, GPUs of several processes may find out one by one.
        is_known_to_all = jax.process_count() == 1 or slice_of(machine.mesh.devices.flat)
        if shrink and is_known_to_all and size % (2 * batch_shards(machine.mesh.shape)) == 0:
            config = config.replace("run", batch_size=size // 2)
            macros = {**macros, "BATCH_SIZE": size // 2}
            return _step(config, macros, text=text, machine=machine, shrink=True)
        said = f"does not fit in the devices' memory with BATCH_SIZE = {size}"
        return Finding(Verdict.FAILED, said, {}, "see what `switch_jax plan` advises")
    rate = config.tokens_per_step / timed.seconds
    if "NUM_EXPERTS" not in macros:  # it is not the dense model beside it
        machine.step_tokens_per_second = rate
    planned, problem = _planned_parts(timed, text, macros, machine)
    flops = step_flops(config) / machine.mesh.size / timed.seconds
    numbers = {
        "seconds": timed.seconds,
        "tokens": config.tokens_per_step,
        "parameters": parameter_count(config.model),
        "flops_per_second": flops,
        "compile_seconds": timed.compile_seconds,
        "exchange_seconds": timed.parts.get(EXCHANGES, 0.0),
        "parts": dict(timed.parts),
        "planned_parts": planned,
        "planned_seconds": sum(planned.values()),
    }
    said = f"{1e3 * timed.seconds:.4g} ms with BATCH_SIZE = {size}, {count(rate)} tokens/s"
    if EXCHANGES in timed.parts:
        said += f", {1e3 * timed.parts[EXCHANGES]:.3g} ms of it exchanges"
    said += f", {count(flops)}FLOP/s a device, compiled in {timed.compile_seconds:.0f} s"
    if not planned:
        return Finding(Verdict.OK, f"{said}{problem}", numbers)
    ratio = timed.seconds / sum(planned.values())
    if machine.is_cpu:  # the plan is made of what was measured here
        said += f"; {ratio:.2f} times what its products and memory alone would take"
        return Finding(Verdict.OK, said, numbers)
    verdict = Verdict.OK if ratio <= SLOW else Verdict.FAILED
    said += f"; {ratio:.2f} times the plan's {1e3 * sum(planned.values()):.4g} ms"
    return Finding(verdict, said, numbers, _slowest(timed.parts, planned))


def _slowest(parts: Mapping[str, float], planned: Mapping[str, float]) -> str:
    """Advice: the part that takes so much longer than planned that it costs most."""
    lost = {part: seconds - planned.get(part, 0.0) for part, seconds in parts.items()}
    if not lost:
        return "take a trace of `switch_jax train` (SIGUSR1), and look for what takes long"
    part = max(lost, key=lambda part: lost[part])
    return (
        f"look at {part}, which takes {1e3 * parts[part]:.3g} ms in place of "
        f"{1e3 * planned.get(part, 0.0):.3g}; plan --measured takes this into account"
    )


def _planned_parts(
    timed: Timed, text: str, macros: Mapping[str, Any], machine: Machine
) -> tuple[dict[str, float], str]:
    """Seconds by part, empty where nothing is planned; and why that cannot be."""
    if machine.is_cpu:
        exchanges = measured_exchanges(timed.operations, machine.mesh, machine.speeds)
        return seconds_by_speeds(timed.operations, exchanges, machine.speeds), ""
    if slice_of(machine.mesh.devices.flat) is None:
        return {}, ""
    found = _plan_of_compiler(text, macros, machine.mesh) if is_first() else None
    parts, problem = gather(found)[0]
    return parts, problem


def _plan_of_compiler(
    text: str, macros: Mapping[str, Any], mesh: Mesh
) -> tuple[dict[str, float], str]:
    """What `switch_jax plan` says, in a process of its own, in which the TPU is not used."""
    slice_ = slice_of(mesh.devices.flat)
    assert slice_ is not None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.gin"
        file.write_text(text)
        command = [sys.executable, "-m", "switch_jax", "plan", "--json", f"--gin_file={file}"]
        command += [f"--gin.{macro}={value}" for macro, value in macros.items()]
        command += [f"--topology={slice_.name}", f"--mesh={','.join(map(str, mesh.devices.shape))}"]
        environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {}, f"; no plan to compare with: {lines[-1]}"
    return planned_parts(json.loads(done.stdout)), ""


def planned_parts(plan: Mapping[str, Any]) -> dict[str, float]:
    """Seconds by part of the JSON of `switch_jax plan`, and of waiting for exchanges."""
    of_a_cycle = plan["compute_seconds_model"] / plan["estimated_cycles"]
    parts = {part: cycles * of_a_cycle for part, cycles in plan["cycles_by_part"].items()}
    return parts | {EXCHANGES: plan["waiting_seconds_model"]}
