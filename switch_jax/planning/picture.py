"""A picture of plans: where the memory of a chip and the time of a step go."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from switch_jax.planning.parts import OTHER, PARTS
from switch_jax.planning.plan import Plan
from switch_jax.reports.figures import COLOURS, GREY

_EXCHANGE = "exchanges"
_MEMORY = ("arguments", "outputs", "temporaries")


def draw(plans: Sequence[Plan], path: str) -> None:
    """Two groups of stacked bars, a bar a plan; writes a PNG or SVG."""
    figure = Figure(figsize=(9, 1.6 + 0.55 * 2 * len(plans)), layout="constrained")
    time, memory = figure.subplots(2, 1)
    names = ["{} x {} x {}".format(*plan.mesh) for plan in plans]
    _bars(time, names, [_times(plan) for plan in plans])
    time.set_title("Time of a step in the model: cycles of each part, then exchanges", loc="left")
    time.set_xlabel("ms")
    _bars(memory, names, [_memories(plan) for plan in plans])
    limit = max(plan.hbm_limit_bytes for plan in plans) / 2**30
    memory.axvline(limit, color=GREY, linestyle="--", linewidth=1)
    memory.annotate(
        f"a chip has {limit:.0f} GiB", (limit, 1), xycoords=("data", "axes fraction"),
        xytext=(-4, -2), textcoords="offset points", ha="right", va="top", fontsize=8, color=GREY,
    )  # fmt: skip
    memory.set_title("Memory of a chip", loc="left")
    memory.set_xlabel("GiB")
    first = plans[0].topology
    figure.suptitle(f"{first.name}, mesh of data x expert x model", x=0.01, ha="left", fontsize=10)
    figure.savefig(path, dpi=150)


def _times(plan: Plan) -> dict[str, float]:
    if plan.costs is None:
        return {}
    clock = plan.topology.generation.clock
    parts = {
        part: plan.costs.cycles_by_part[part] / clock * 1e3
        for part in (*PARTS, OTHER)
        if part in plan.costs.cycles_by_part
    }
    return {**parts, _EXCHANGE: plan.costs.collective_seconds * 1e3}


def _memories(plan: Plan) -> dict[str, float]:
    if plan.costs is None:
        return {"needed, too much": plan.hbm_bytes / 2**30}
    sizes = (
        plan.costs.arguments_bytes, plan.costs.outputs_bytes, plan.costs.temporaries_bytes,
    )  # fmt: skip
    return {name: size / 2**30 for name, size in zip(_MEMORY, sizes, strict=True)}


def _bars(axes: Axes, names: Sequence[str], stacks: Sequence[dict[str, float]]) -> None:
    segments = list(dict.fromkeys(segment for stack in stacks for segment in stack))
    left = [0.0] * len(stacks)
    for i, segment in enumerate(segments):
        widths = [stack.get(segment, 0.0) for stack in stacks]
        axes.barh(
            range(len(stacks)), widths, left=left, height=0.6, label=segment,
            color=COLOURS[i % len(COLOURS)], alpha=1 if i < len(COLOURS) else 0.5,
        )  # fmt: skip
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(stacks)), names)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, ncols=1, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
