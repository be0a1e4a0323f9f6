"""Writes plans as tables of text."""

import math
from collections.abc import Iterator, Sequence

from switch_jax.hardware.prices import usd
from switch_jax.partitioning.mesh import AXES, readers
from switch_jax.planning.plan import MUCH_WAITING, Plan
from switch_jax.utils.units import count, counted, memory_size, percent

# About what one core preprocesses of C4 (benchmarks/README.md).
TOKENS_PER_SECOND_OF_STREAM = 0.45e6

Rows = Iterator[tuple[str, str]]  # the name of a figure, and what it is


def table(plan: Plan, price_per_chip_hour: float | None = None) -> str:
    """Writes a line for each figure, and those of the whole run; the price is in USD."""
    prices = () if price_per_chip_hour is None else _prices(plan, price_per_chip_hour)
    rows = (*_sizes(plan), *_costs(plan), *_verdict(plan), *prices, *_warnings(plan))
    return "\n".join(f"{name:<36} {value}" for name, value in rows)


def _sizes(plan: Plan) -> Rows:
    """Yields the slice, the mesh, the size of the state, the groups, and whether all fits."""
    hardware, groups = plan.hardware, plan.routing_groups
    has = f"{counted(hardware.chips, 'chip')}, {counted(hardware.devices, 'device')}"
    needed, limit = memory_size(plan.hbm_bytes_per_chip), memory_size(plan.hbm_limit_bytes)
    yield "slice", f"{hardware.name}: {has}"
    yield "mesh", "data {} x expert {} x model {}".format(*plan.mesh)
    yield "parameters", f"{count(plan.parameters)}, {memory_size(plan.parameter_bytes)} in total"
    yield "optimiser", f"{memory_size(plan.optimizer_bytes)} in total"
    if plan.teacher_bytes:
        yield "teacher", f"{memory_size(plan.teacher_bytes)} in total"
    for stack, group in groups.items():
        yield f"routing, {stack}", str(group)
    for group in groups.values():
        if group.warning:
            yield "warning", group.warning
    yield "memory of a chip", f"{needed} of {limit}: {'it fits' if plan.fits else 'OUT OF MEMORY'}"
    has = "" if plan.host_limit_bytes is None else f" of {memory_size(plan.host_limit_bytes)}"
    yield "memory of a host", f"about {memory_size(plan.host_bytes)}{has}"


def _costs(plan: Plan) -> Rows:
    """Yields memory and time by part; nothing for a step that does not fit."""
    costs, generation = plan.costs, plan.hardware.generation
    if costs is None:
        return
    inputs = "state, batch and teacher" if plan.teacher_bytes else "state and batch"
    yield "  arguments", f"{memory_size(costs.arguments_bytes)} ({inputs})"
    yield "  outputs", f"{memory_size(costs.outputs_bytes)} beside the state"
    yield "  temporaries", memory_size(costs.temporaries_bytes)
    yield "  program", memory_size(costs.program_bytes)
    yield "model FLOPs", f"{count(plan.model_flops)} per step, all chips"
    flops, of_slots = costs.compiled_flops, plan.model_flops_with_empty_slots
    times = f"{flops / plan.model_flops:.3f} times the model's, {flops / of_slots:.3f} times"
    yield "compiled FLOPs", f"{count(flops)}, {times} with empty slots"
    counted_there = f"of which {costs.scheduled_cycles:,} are counted in the schedule"
    yield "estimated cycles", f"{costs.estimated_cycles:,} per device and step, {counted_there}"
    for part, cycles in costs.cycles_by_part.items():
        share, floor = percent(cycles / costs.estimated_cycles), costs.floor_by_part[part]
        yield f"  {part}", f"{cycles:,} ({share}), at least {floor:,}"
    if costs.uncounted:
        listed = ", ".join(f"{number} {opcode}" for opcode, number in costs.uncounted.items())
        yield "  not counted", f"{listed}: the compiler has no figure for these"
    whole = f"{percent(plan.utilisation_with_waiting)} with waiting"
    yield "utilisation", f"{percent(plan.utilisation)} of peak, by model FLOPs and cycles, {whole}"
    for c in costs.collectives:
        size = f"{c.bytes} B" if c.bytes < 1000 else f"{count(c.bytes)}B"
        waiting = f"the devices wait for {_ms(c.waiting_seconds, 2)}"
        sent = f"{c.count} x {c.dtype}, {size} a device, {_ms(c.seconds, 2)} ms"
        yield f"{c.op} over {c.axis}", f"{sent}, {waiting}"
    computing = f"{_ms(costs.compute_seconds)} ms of cycles at {generation.clock / 1e9:.2f} GHz"
    waiting = f"{_ms(costs.waiting_seconds)} ms waiting"
    yield "step-time model", f"{_ms(costs.step_seconds)} ms = {computing} + {waiting}"
    yield "", f"for exchanges, {_ms(costs.collective_seconds)} ms in all; a model, not a"
    yield "", "measurement: one exchange after the other, beside computation where the"
    yield "", "compiler has split it into a start and an end, over links of"
    yield "", f"{generation.link_bandwidth / 1e9:.0f} GB/s each way, without latency"
    if plan.hardware.count > 1:
        of_a_chip = f"{generation.dcn_bandwidth / 1e9:.1f} GB/s a chip"
        yield "", f"and, between slices, over the hosts' network with {of_a_chip}"


def _verdict(plan: Plan) -> Rows:
    """Yields speed and time of the whole run."""
    compiled = "compiled in", f"{plan.compile_seconds:.0f} s on this machine"
    if not plan.fits:
        yield compiled
        return
    rate, of_host = count(plan.tokens_per_second), count(plan.tokens_per_second_per_host)
    parts = readers(plan.hardware.hosts, dict(zip(AXES, plan.mesh, strict=True)))
    needed = math.ceil(plan.tokens_per_second / parts / TOKENS_PER_SECOND_OF_STREAM)
    rows = plan.batch_size // parts
    # All streams of a host give equally many rows, so their number has to divide the host's rows.
    streams = next((n for n in range(needed, rows) if rows % n == 0), rows)
    yield "tokens a second", f"{rate}, of which each host reads {of_host}"
    own = f"a host's own part takes {counted(streams, 'stream')}"
    yield "", f"{own}: DATA_STREAMS = {streams * parts}"
    yield "576B input tokens", f"{_duration(plan.paper_days)} (what the paper pretrains on)"
    yield compiled
    hours = f"{plan.chip_hours:,.0f}" if plan.chip_hours >= 10 else f"{plan.chip_hours:.2g}"
    whole = f"{_duration(plan.days)} on {counted(plan.hardware.chips, 'chip')}"
    yield f"{plan.train_steps:,} steps (TRAIN_STEPS)", f"{whole}: {hours} chip-hours"


def _prices(plan: Plan, price_per_chip_hour: float) -> Rows:
    """Yields what an hour of the slice and the run cost; of a step that does not fit the first."""
    an_hour = usd(price_per_chip_hour * plan.hardware.chips)
    whole = f", {usd(price_per_chip_hour * plan.chip_hours)} in all" if plan.fits else ""
    yield "price", f"{an_hour} an hour{whole}, at {price_per_chip_hour:g} for a chip's"


def _warnings(plan: Plan) -> Rows:
    """Yields a warning of long waits for collectives."""
    if plan.fits and plan.waiting > MUCH_WAITING:
        yield "warning", f"the devices wait for exchanges in {plan.waiting:.0%} of a step;"
        yield "", "--search compares the meshes of this slice"
        for name, seconds in plan.waiting_seconds_elsewhere.items():
            yield "", f"{name}, as many chips: {_ms(seconds)} ms waiting"


def ranking(plans: Sequence[Plan]) -> str:
    """Writes a line for each mesh, in the order of the plans."""
    head = f"{'data':>6} {'expert':>6} {'model':>6} {'GiB/chip':>9} {'step ms':>8} {'tokens/s':>9}"
    lines = [head]
    for plan in plans:
        line = " ".join(f"{n:>6}" for n in plan.mesh) + f" {plan.hbm_bytes_per_chip / 2**30:>9.1f}"
        rate = count(plan.tokens_per_second) if plan.fits else ""
        figures = f"{_ms(plan.step_seconds):>8} {rate:>9}" if plan.fits else "out of memory"
        lines.append(f"{line} {figures}")
    return "\n".join(lines) + "\n"


def in_short(plan: Plan) -> str:
    """Writes memory and speed of a mesh in a line, shown while others are compiled."""
    memory = f"{memory_size(plan.hbm_bytes_per_chip)} a chip"
    if not plan.fits:
        return f"{memory}: out of memory"
    rate = count(plan.tokens_per_second)
    return f"{memory}, {_ms(plan.step_seconds)} ms a step, {rate} tokens/s"


def _ms(seconds: float, digits: int = 1) -> str:
    return f"{seconds * 1e3:.{digits}f}"


def _duration(days: float) -> str:
    return f"{days:.3g} days" if days >= 1 else f"{24 * days:.2g} hours"
