"""Plans as tables of text."""

from collections.abc import Sequence

from switch_jax.planning.cpu_plan import CpuPlan
from switch_jax.planning.gpu_plan import GpuPlan
from switch_jax.planning.measured import EXCHANGES, Measured
from switch_jax.planning.plan import Plan
from switch_jax.units import count, counted, memory_size, percent


def table(plan: Plan | GpuPlan | CpuPlan) -> str:
    """A line for each figure of a plan."""
    if isinstance(plan, CpuPlan):
        return _cpu_table(plan)
    return _gpu_table(plan) if isinstance(plan, GpuPlan) else _tpu_table(plan)


def _tpu_table(plan: Plan) -> str:
    slice_, generation = plan.topology, plan.topology.generation
    lines = [
        _row(
            "slice",
            f"{slice_.name}: {counted(slice_.chips, 'chip')}, {counted(slice_.devices, 'device')}",
        ),
        *_sizes(plan),
        _row("memory of a chip", _memory(plan)),
    ]
    costs = plan.costs
    if costs is None:
        return "\n".join(lines)
    lines += [
        _row("  arguments", f"{memory_size(costs.arguments_bytes)} ({_inputs(plan)})"),
        _row("  outputs", f"{memory_size(costs.outputs_bytes)} beside the state"),
        _row("  temporaries", memory_size(costs.temporaries_bytes)),
        _row("  program", memory_size(costs.program_bytes)),
        _row("model FLOPs", f"{count(plan.model_flops)} per step, all chips"),
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
        lines.append(_row(f"  {part}", f"{cycles:,} ({share}), at least {floor:,}"))
    if costs.uncounted:
        listed = ", ".join(f"{number} {opcode}" for opcode, number in costs.uncounted.items())
        lines.append(_row("  not counted", f"{listed}: the compiler has no figure for these"))
    lines.append(
        _row("utilisation", f"{percent(plan.utilisation or 0)} of peak, by model FLOPs and cycles")
    )
    for c in costs.collectives:
        lines.append(
            _row(
                f"{c.op} over {c.axis}",
                f"{c.count} x {c.dtype}, {_bytes(c.bytes)} a device, {c.seconds * 1e3:.2f} ms, "
                f"the devices wait for {c.waiting_seconds * 1e3:.2f}",
            )
        )
    lines += [
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
        _row(
            "tokens a second",
            f"{count(plan.tokens_per_second or 0)}, of which each host reads "
            f"{count(plan.tokens_per_second_per_host or 0)}",
        ),
        _row(f"{plan.train_steps:,} steps (TRAIN_STEPS)", _duration(plan.days or 0)),
        _row(
            "576B input tokens", f"{_duration(plan.paper_days or 0)} (what the paper pretrains on)"
        ),
        _row("compiled in", f"{plan.compile_seconds:.0f} s on this machine"),
    ]
    return "\n".join(lines)


def _gpu_table(plan: GpuPlan) -> str:
    cluster, memory = plan.cluster, plan.memory
    servers = f" in {counted(cluster.servers, 'server')}" if cluster.servers > 1 else ""
    calls = f"{memory.cudnn_calls} calls of cuDNN, without the memory that they work in"
    attention = calls if memory.cudnn_calls else "XLA's"
    lines = [
        _row(
            "GPUs",
            f"{cluster.devices} x NVIDIA {cluster.gpu.device_kind}, "
            f"{memory_size(cluster.gpu.memory_bytes)} each{servers}",
        ),
        *_sizes(plan),
        _row("memory of a GPU", _memory(plan)),
        _row("  arguments", f"{memory_size(memory.arguments)} ({_inputs(plan)})"),
        _row("  outputs", f"{memory_size(memory.outputs - memory.aliased)} beside the state"),
        _row("  temporaries", memory_size(memory.temporaries)),
        _row("  program", memory_size(memory.code)),
    ]
    if plan.needs_fraction:
        lines.append(_row("", "set XLA_PYTHON_CLIENT_MEM_FRACTION=0.95: JAX takes 0.75 by default"))
    lines += [
        _row("attention", attention),
        _row("model FLOPs", f"{count(plan.model_flops)} per step, all GPUs"),
        _row("a step takes at least", f"{plan.least_seconds * 1e3:.1f} ms, at the GPUs' peak"),
    ]
    if plan.step_seconds and plan.measured:
        share = percent(plan.least_seconds / plan.step_seconds)
        lines.append(
            _row(
                "a step takes about",
                f"{plan.step_seconds * 1e3:.1f} ms, at {share} of the peak, as the step in "
                f"{plan.measured.file}",
            )
        )
    lines += [
        _row("compiled in", f"{memory.seconds:.0f} s on this machine"),
    ]
    return "\n".join(lines)


def _cpu_table(plan: CpuPlan) -> str:
    lines = [
        _row("CPUs", f"{plan.topology}: {counted(plan.measured.devices, 'device')} of one machine"),
        *_sizes(plan),
        _row("memory of a device", _memory(plan)),
        _row("model FLOPs", f"{count(plan.model_flops)} per step, all devices"),
        _row("step-time model", f"{plan.step_seconds * 1e3:.1f} ms; a model, not a measurement"),
    ]
    for part, seconds in plan.parts.items():
        share = percent(seconds / plan.step_seconds)
        lines.append(_row(f"  {part}", f"{seconds * 1e3:.2f} ms ({share})"))
    return "\n".join(
        [
            *lines,
            *_ratios(plan.measured),
            _row("tokens a second", count(plan.tokens / plan.step_seconds)),
            _row(
                f"{plan.train_steps:,} steps (TRAIN_STEPS)",
                _duration(plan.train_steps * plan.step_seconds / 86400),
            ),
            _row("compiled in", f"{plan.compile_seconds:.0f} s on this machine"),
        ]
    )


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


def _sizes(plan: Plan | GpuPlan | CpuPlan) -> list[str]:
    """The mesh, what the state takes, and the routing groups."""
    return [
        _row("mesh", "data {} x expert {} x model {}".format(*plan.mesh)),
        _row("parameters", f"{count(plan.parameters)}, {_in_total(plan.parameter_bytes)}"),
        _row("optimiser", _in_total(plan.optimizer_bytes)),
        *([_row("teacher", _in_total(plan.teacher_bytes))] if plan.teacher_bytes else []),
        *(_row(f"routing, {stack}", str(groups)) for stack, groups in plan.groups.items()),
        *(_row("warning", groups.warning) for groups in plan.groups.values() if groups.warning),
    ]


def _memory(plan: Plan | GpuPlan | CpuPlan) -> str:
    needed, limit = memory_size(plan.hbm_bytes), memory_size(plan.hbm_limit_bytes)
    return f"{needed} of {limit}: {'it fits' if plan.fits else 'OUT OF MEMORY'}"


def _inputs(plan: Plan | GpuPlan) -> str:
    return "state, batch and teacher" if plan.teacher_bytes else "state and batch"


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
