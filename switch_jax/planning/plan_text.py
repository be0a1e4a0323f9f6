"""Plans as tables of text."""

from collections.abc import Sequence

from switch_jax.planning.cpu_plan import CpuPlan
from switch_jax.planning.gpu_plan import GpuPlan
from switch_jax.planning.measured import EXCHANGES, Measured
from switch_jax.planning.plan import Plan
from switch_jax.planning.step_plan import StepPlan
from switch_jax.units import count, counted, memory_size, percent


def table(plan: StepPlan) -> str:
    """A line for each figure of a plan."""
    rows: list[str] = []
    if isinstance(plan, Plan):
        rows = [_slice(plan), *_sizes(plan, "chip"), *_tpu_rows(plan)]
    elif isinstance(plan, GpuPlan):
        rows = [_gpus(plan), *_sizes(plan, "GPU"), *_gpu_rows(plan)]
    elif isinstance(plan, CpuPlan):
        rows = [_cpus(plan), *_sizes(plan, "device"), *_cpu_rows(plan)]
    if plan.tokens_per_second and plan.days:
        rate, hosts = count(plan.tokens_per_second), ""
        if isinstance(plan, Plan):
            hosts = f", of which each host reads {count(plan.tokens_per_second_per_host or 0)}"
        rows.append(_row("tokens a second", rate + hosts))
        rows.append(_row(f"{plan.train_steps:,} steps (TRAIN_STEPS)", _duration(plan.days)))
    if isinstance(plan, Plan) and plan.paper_days:
        paper = f"{_duration(plan.paper_days)} (what the paper pretrains on)"
        rows.append(_row("576B input tokens", paper))
    rows.append(_row("compiled in", f"{plan.compile_seconds:.0f} s on this machine"))
    return "\n".join(rows)


def _slice(plan: Plan) -> str:
    chips, devices = plan.hardware.chips, plan.hardware.devices
    has = f"{counted(chips, 'chip')}, {counted(devices, 'device')}"
    return _row("slice", f"{plan.hardware.name}: {has}")


def _tpu_rows(plan: Plan) -> list[str]:
    costs, generation = plan.costs, plan.hardware.generation
    if costs is None:
        return []
    rows = [
        *_memory(
            plan,
            costs.arguments_bytes,
            costs.outputs_bytes,
            costs.temporaries_bytes,
            costs.program_bytes,
        ),
        _model_flops(plan, "chips"),
        _row(
            "compiled FLOPs",
            f"{count(costs.compiled_flops)}, {costs.compiled_flops / plan.model_flops:.3f} times "
            f"the model's, {costs.compiled_flops / plan.slot_flops:.3f} times with empty slots",
        ),
        _row(
            "estimated cycles",
            f"{costs.estimated_cycles:,} per device and step, of which "
            f"{costs.scheduled_cycles:,} are counted in the schedule",
        ),
    ]
    for part, cycles in costs.cycles_by_part.items():
        share, floor = percent(cycles / costs.estimated_cycles), costs.floor_by_part[part]
        rows.append(_row(f"  {part}", f"{cycles:,} ({share}), at least {floor:,}"))
    if costs.uncounted:
        listed = ", ".join(f"{number} {opcode}" for opcode, number in costs.uncounted.items())
        rows.append(_row("  not counted", f"{listed}: the compiler has no figure for these"))
    rows.append(
        _row("utilisation", f"{percent(plan.utilisation or 0)} of peak, by model FLOPs and cycles")
    )
    for c in costs.collectives:
        rows.append(
            _row(
                f"{c.op} over {c.axis}",
                f"{c.count} x {c.dtype}, {_bytes(c.bytes)} a device, {c.seconds * 1e3:.2f} ms, "
                f"the devices wait for {c.waiting_seconds * 1e3:.2f}",
            )
        )
    return [
        *rows,
        _row(
            "step-time model",
            f"{costs.step_seconds * 1e3:.1f} ms = {costs.compute_seconds * 1e3:.1f} ms of cycles "
            f"at {generation.clock / 1e9:.2f} GHz + {costs.waiting_seconds * 1e3:.1f} ms waiting",
        ),
        _row("", f"for exchanges, {costs.collective_seconds * 1e3:.1f} ms in all; a model, not a"),
        _row("", "measurement: one exchange after the other, beside computation where the"),
        _row("", "compiler has split it into a start and an end, over links of"),
        _row("", f"{generation.link_bandwidth / 1e9:.0f} GB/s each way, without latency"),
        *_ratios(plan.measured),
    ]


def _gpus(plan: GpuPlan) -> str:
    cluster = plan.hardware
    servers = f" in {counted(cluster.servers, 'server')}" if cluster.servers > 1 else ""
    size = memory_size(cluster.gpu.memory_bytes)
    what = f"{cluster.devices} x NVIDIA {cluster.gpu.device_kind}, {size} each{servers}"
    return _row("GPUs", what)


def _gpu_rows(plan: GpuPlan) -> list[str]:
    memory, needs_fraction = plan.memory, "set XLA_PYTHON_CLIENT_MEM_FRACTION=0.95: JAX takes 0.75"
    calls = f"{memory.cudnn_calls} calls of cuDNN, without the memory that they work in"
    rows = [
        *_memory(
            plan,
            memory.arguments,
            memory.outputs - memory.aliased,
            memory.temporaries,
            memory.code,
        ),
        *([_row("", f"{needs_fraction} by default")] if plan.needs_fraction else []),
        _row("attention", calls if memory.cudnn_calls else "XLA's"),
        _model_flops(plan, "GPUs"),
        _row("a step takes at least", f"{plan.least_seconds * 1e3:.1f} ms, at the GPUs' peak"),
    ]
    if plan.step_seconds and plan.measured:
        share, file = percent(plan.least_seconds / plan.step_seconds), plan.measured.file
        time = f"{plan.step_seconds * 1e3:.1f} ms, at {share} of the peak, as the step in {file}"
        rows.append(_row("a step takes about", time))
    return rows


def _cpus(plan: CpuPlan) -> str:
    devices = counted(plan.hardware.devices, "device")
    return _row("CPUs", f"{plan.hardware.name}: {devices} of one machine")


def _cpu_rows(plan: CpuPlan) -> list[str]:
    rows = [
        _model_flops(plan, "devices"),
        _row("step-time model", f"{plan.step_seconds * 1e3:.1f} ms; a model, not a measurement"),
    ]
    for part, seconds in plan.parts.items():
        share = percent(seconds / plan.step_seconds)
        rows.append(_row(f"  {part}", f"{seconds * 1e3:.2f} ms ({share})"))
    return [*rows, *_ratios(plan.measured)]


def _ratios(measured: Measured | None) -> list[str]:
    """By what the model's times were multiplied, and whose figures these are."""
    if measured is None:
        return []
    parts = {p: r for p, r in measured.part_ratios.items() if p != EXCHANGES}
    ratios = parts | {name: found.ratio for name, found in measured.speeds.exchanges.items()}
    return [
        _row("times, by what was measured", f"by the ratios to the plan in {measured.file}:"),
        *(_row(f"  {name}", f"{ratio:.2f}") for name, ratio in ratios.items()),
    ]


def _sizes(plan: StepPlan, device: str) -> list[str]:
    """The mesh, what the state takes, the routing groups, and whether all fits."""
    needed, limit = memory_size(plan.hbm_bytes), memory_size(plan.hbm_limit_bytes)
    fits = "it fits" if plan.fits else "OUT OF MEMORY"
    return [
        _row("mesh", "data {} x expert {} x model {}".format(*plan.mesh)),
        _row("parameters", f"{count(plan.parameters)}, {_in_total(plan.parameter_bytes)}"),
        _row("optimiser", _in_total(plan.optimizer_bytes)),
        *([_row("teacher", _in_total(plan.teacher_bytes))] if plan.teacher_bytes else []),
        *(_row(f"routing, {stack}", str(groups)) for stack, groups in plan.groups.items()),
        *(_row("warning", groups.warning) for groups in plan.groups.values() if groups.warning),
        _row(f"memory of a {device}", f"{needed} of {limit}: {fits}"),
    ]


def _memory(
    plan: StepPlan, arguments: int, outputs: int, temporaries: int, program: int
) -> list[str]:
    inputs = "state, batch and teacher" if plan.teacher_bytes else "state and batch"
    return [
        _row("  arguments", f"{memory_size(arguments)} ({inputs})"),
        _row("  outputs", f"{memory_size(outputs)} beside the state"),
        _row("  temporaries", memory_size(temporaries)),
        _row("  program", memory_size(program)),
    ]


def _model_flops(plan: StepPlan, devices: str) -> str:
    return _row("model FLOPs", f"{count(plan.model_flops)} per step, all {devices}")


def ranking(plans: Sequence[Plan]) -> str:
    """A line for each mesh, in the order of the plans."""
    head = f"{'data':>6} {'expert':>6} {'model':>6} {'GiB/chip':>9} {'step ms':>8} {'tokens/s':>9}"
    lines = [head]
    for plan in plans:
        mesh = " ".join(f"{n:>6}" for n in plan.mesh)
        if plan.costs is None:
            lines.append(f"{mesh} {plan.hbm_bytes / 2**30:>9.1f} out of memory")
            continue
        step, rate = plan.costs.step_seconds * 1e3, count(plan.tokens_per_second or 0)
        lines.append(f"{mesh} {plan.hbm_bytes / 2**30:>9.1f} {step:>8.1f} {rate:>9}")
    return "\n".join(lines) + "\n"


def in_short(plan: Plan) -> str:
    """Memory and speed of a mesh, to be read while others are compiled."""
    memory = f"{memory_size(plan.hbm_bytes)} a chip"
    if plan.costs is None:
        return f"{memory}: out of memory"
    step, rate = plan.costs.step_seconds * 1e3, count(plan.tokens_per_second or 0)
    return f"{memory}, {step:.1f} ms a step, {rate} tokens/s"


def _row(name: str, value: str) -> str:
    return f"{name:<36} {value}"


def _duration(days: float) -> str:
    return f"{days:.3g} days" if days >= 1 else f"{24 * days:.2g} hours"


def _in_total(size: int) -> str:
    return f"{memory_size(size)} in total"


def _bytes(size: int) -> str:
    return f"{size} B" if size < 1000 else f"{count(size)}B"
