"""Draws a chart of plans: the memory of a chip and the time of a step, by part."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from switch_jax.drawing.figures import COLOURS, GREY
from switch_jax.planning.model_parts import MODEL_PARTS, OTHER
from switch_jax.planning.plan import Plan
from switch_jax.storage import explain_write_errors, open_atomic, storage_path


def draw(plans: Sequence[Plan], path: str) -> None:
    """Writes two charts with a stacked bar for each plan, as PNG or SVG."""
    height = max(1.2, 0.4 * len(plans))
    figure = Figure(figsize=(10, 1.5 + 2 * height), layout="constrained")
    time, memory = figure.subplots(2, 1)
    names = ["{} x {} x {}".format(*plan.mesh) for plan in plans]
    _bars(time, names, [_times(plan) for plan in plans], "ms")
    for i, plan in enumerate(plans):
        if plan.costs is None:
            time.annotate(
                "does not fit",
                (0, i),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=GREY,
            )
    time.set_title("Time of a step in the model: each part, then waiting for exchanges", loc="left")
    time.set_xlabel("ms")
    _bars(memory, names, [_memories(plan) for plan in plans], "GiB")
    limit = min(plan.hbm_limit_bytes for plan in plans) / 2**30
    memory.axvline(limit, color=GREY, linestyle="--", linewidth=1, label=f"limit, {limit:.1f} GiB")
    memory.set_title("Memory of a chip", loc="left")
    memory.set_xlabel("GiB")
    for axes in (time, memory):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(
                fontsize=8,
                ncols=2,
                loc="upper left",
                bbox_to_anchor=(1.01, 1.0),
                frameon=False,
                borderaxespad=0,
            )
    first = plans[0].hardware
    figure.suptitle(f"{first.name}, mesh of data x expert x model", x=0.01, ha="left", fontsize=10)
    file = storage_path(path)
    with explain_write_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with open_atomic(file) as opened:
            figure.savefig(opened, format=file.suffix[1:], dpi=150)


def _times(plan: Plan) -> dict[str, float]:
    if plan.costs is None:
        return {}
    clock = plan.hardware.generation.clock
    parts = {
        part: plan.costs.cycles_by_part[part] / clock * 1e3
        for part in (*MODEL_PARTS, OTHER)
        if part in plan.costs.cycles_by_part
    }
    return {**parts, "waiting for exchanges": plan.costs.waiting_seconds * 1e3}


def _memories(plan: Plan) -> dict[str, float]:
    if plan.costs is None:
        return {"needed, too much": plan.hbm_bytes_per_chip / 2**30}
    costs = plan.costs
    sizes = {
        "arguments": costs.arguments_bytes,
        "outputs": costs.outputs_bytes,
        "temporaries": costs.temporaries_bytes,
        "program": costs.program_bytes,
    }
    return {name: size / 2**30 for name, size in sizes.items()}


def _bars(axes: Axes, names: Sequence[str], stacks: Sequence[dict[str, float]], unit: str) -> None:
    segments = list(dict.fromkeys(segment for stack in stacks for segment in stack))
    left = [0.0] * len(stacks)
    height = 0.6 if len(stacks) > 1 else 0.3
    for i, segment in enumerate(segments):
        widths = [stack.get(segment, 0.0) for stack in stacks]
        bars = axes.barh(
            range(len(stacks)),
            widths,
            left=left,
            height=height,
            label=segment,
            color=COLOURS[i % len(COLOURS)],
            hatch="" if i < len(COLOURS) else "////",
            edgecolor="white",
            linewidth=0,
        )
        left = [a + b for a, b in zip(left, widths, strict=True)]
        if segment == segments[-1]:
            sums = [f"{total:.1f} {unit}" if total else "" for total in left]
            axes.bar_label(bars, sums, padding=4, fontsize=8)
    axes.margins(x=0.1)  # room for the sum of the longest bar
    axes.set_yticks(range(len(stacks)), names)
    axes.set_ylim(len(stacks) - 0.5, -0.5)
    axes.spines[["top", "right"]].set_visible(False)
