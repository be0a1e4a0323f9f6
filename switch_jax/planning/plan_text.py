"""Plans as tables of text."""

from collections.abc import Sequence

from switch_jax.planning.plan import MUCH_WAITING, Plan
from switch_jax.units import count, counted, memory_size, percent


def table(plan: Plan, chip_hour: float | None = None) -> str:
    """A line for each figure of a plan, and at the end what the run takes.

    Args:
      plan: of one mesh.
      chip_hour: price of an hour of a chip, in any currency.
    """
    rows = [*_sizes(plan), *_costs(plan)]
    if plan.tokens_per_second and plan.paper_days:
        rate, of_host = count(plan.tokens_per_second), count(plan.tokens_per_second_per_host or 0)
        paper = f"{_duration(plan.paper_days)} (what the paper pretrains on)"
        rows.append(_row("tokens a second", f"{rate}, of which each host reads {of_host}"))
        rows.append(_row("576B input tokens", paper))
    rows.append(_row("compiled in", f"{plan.compile_seconds:.0f} s on this machine"))
    return "\n".join([*rows, *_verdict(plan, chip_hour)])


def _verdict(plan: Plan, chip_hour: float | None) -> list[str]:
    """What the whole run takes, and a warning where devices wait long for exchanges."""
    if plan.days is None or plan.chip_hours is None or plan.waiting is None:
        return []
    hours = f"{plan.chip_hours:,.0f}" if plan.chip_hours >= 10 else f"{plan.chip_hours:.2g}"
    price = "" if chip_hour is None else f", {chip_hour * plan.chip_hours:,.2f} at {chip_hour:g}"
    chips = counted(plan.hardware.chips, "chip")
    whole = f"{_duration(plan.days)} on {chips}: {hours} chip-hours{price}"
    rows = [_row(f"{plan.train_steps:,} steps (TRAIN_STEPS)", whole)]
    if plan.waiting > MUCH_WAITING:
        waiting = f"the devices wait for exchanges in {plan.waiting:.0%} of a step;"
        rows += [_row("warning", waiting), _row("", "--search compares the meshes of this slice")]
        for name, seconds in plan.waiting_elsewhere.items():
            rows.append(_row("", f"{name}, as many chips: {seconds * 1e3:.1f} ms waiting"))
    return rows


def _costs(plan: Plan) -> list[str]:
    """What the memory is for, and where the time goes; empty for a step that does not fit."""
    costs, generation = plan.costs, plan.hardware.generation
    if costs is None:
        return []
    inputs = "state, batch and teacher" if plan.teacher_bytes else "state and batch"
    rows = [
        _row("  arguments", f"{memory_size(costs.arguments_bytes)} ({inputs})"),
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
    ]


def _sizes(plan: Plan) -> list[str]:
    """The slice, the mesh, what the state takes, the routing groups, and whether all fits."""
    hardware = plan.hardware
    has = f"{counted(hardware.chips, 'chip')}, {counted(hardware.devices, 'device')}"
    needed, limit = memory_size(plan.hbm_bytes), memory_size(plan.hbm_limit_bytes)
    fits = "it fits" if plan.fits else "OUT OF MEMORY"
    return [
        _row("slice", f"{hardware.name}: {has}"),
        _row("mesh", "data {} x expert {} x model {}".format(*plan.mesh)),
        _row("parameters", f"{count(plan.parameters)}, {_in_total(plan.parameter_bytes)}"),
        _row("optimiser", _in_total(plan.optimizer_bytes)),
        *([_row("teacher", _in_total(plan.teacher_bytes))] if plan.teacher_bytes else []),
        *(_row(f"routing, {stack}", str(groups)) for stack, groups in plan.groups.items()),
        *(_row("warning", groups.warning) for groups in plan.groups.values() if groups.warning),
        _row("memory of a chip", f"{needed} of {limit}: {fits}"),
    ]


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
