"""What came out of a comparison, in plain words."""

from collections.abc import Sequence

import numpy as np

from switch_jax.reports.comparison import Comparison, ComparisonOverSeeds
from switch_jax.units import rounded

_LEVEL = 0.0005  # nats; a smaller lead is none


def verdicts(comparisons: Sequence[ComparisonOverSeeds]) -> list[str]:
    """One for each comparison: whether, how soon and by how much the sparse model is ahead."""
    dense = {comparison.dense.label for comparison in comparisons}
    experts = {c.sparse.label: c.sparse.num_experts for c in comparisons}
    told_apart = len(set(experts.values())) == len(experts)
    return [
        _verdict(
            comparison,
            f"Switch with {comparison.sparse.num_experts} experts"
            if told_apart
            else comparison.sparse.label,
            "the dense model" if len(dense) == 1 else comparison.dense.label,
        )
        for comparison in comparisons
    ]


def furthest_ahead(comparisons: Sequence[ComparisonOverSeeds]) -> list[str]:
    """The verdict on the sparse model with the largest lead at the end; empty if there is none."""
    if not comparisons:
        return []
    leads = [np.mean([pair.final_lead for pair in c.pairs]) for c in comparisons]
    return [verdicts(comparisons)[int(np.argmax(np.nan_to_num(leads, nan=-np.inf)))]]


def _verdict(comparison: ComparisonOverSeeds, sparse: str, dense: str) -> str:
    pairs = comparison.pairs
    going = any(pair.unfinished for pair in pairs)
    reached = [pair for pair in pairs if pair.has_reached]
    text = _reached(pairs, reached, sparse, dense, going)
    overlapping = [pair for pair in pairs if len(pair.lead.nats)]
    if overlapping:
        ahead = np.mean([pair.final_lead for pair in overlapping]) > 0
        joint = "and" if bool(reached) == ahead else "but"
        text += f", {joint} {_end(overlapping, going)}. {_in_front(overlapping, going)}"
    else:
        text += "."
    timed = [pair for pair in pairs if np.isfinite(pair.best_of_both[1])]
    if len(reached) < len(pairs) and timed and not any(pair.same_flops for pair in timed):
        text += f" {_in_time(timed, dense, going)}"
    if len(pairs) > 1:
        text += f" These are means over {comparison.in_number}, with the range."
    return text


def _reached(
    pairs: Sequence[Comparison], reached: Sequence[Comparison], sparse: str, dense: str, going: bool
) -> str:
    subject = f"So far, {sparse}" if going else sparse
    quality = f"{dense}'s {'latest' if going else 'final'} quality"
    if not reached:
        return f"{subject} {'has not reached' if going else 'did not reach'} {quality}"
    text = f"{subject} {'has ' * going}reached {quality} "
    if len(reached) < len(pairs):
        text += f"with {len(reached)} of {len(pairs)} seeds, "
    bound = "at most " if any(pair.reached.at_first for pair in reached) else ""
    steps = [pair.reached.step / pair.dense_step for pair in reached]
    text += f"in {bound}{_percent(steps)} of its steps"
    times = [1 / pair.time_speedup for pair in reached if pair.time_speedup]
    if len(times) == len(reached) and np.isfinite(times).all():
        text += f" and {_percent(times)} of its time"
    return text


def _with_range(values: Sequence[float], form: str, unit: str = "") -> tuple[str, str]:
    """The mean of some values and, where that is not all, the lowest and the highest."""
    mean, low, high = (form.format(x) for x in (np.mean(values), min(values), max(values)))
    return f"{mean}{unit}", "" if low == high else f" ({low} to {high}{unit})"


def _percent(shares: Sequence[float]) -> str:
    return "".join(_with_range([100 * share for share in shares], "{:.0f}", " %"))


def _in_time(pairs: Sequence[Comparison], dense: str, going: bool) -> str:
    """What the larger computation costs; without it a lead at equal steps would say little."""
    values, ratios = zip(*(pair.best_of_both for pair in pairs), strict=True)
    mean, between = _with_range(ratios, "{:.2g}")
    both = f"{rounded(float(np.mean(values)))}, the best value that both {'have ' * going}reached"
    return f"To {both}, {dense} took {mean} times{between} as long."


def _end(pairs: Sequence[Comparison], going: bool) -> str:
    leads = [pair.final_lead for pair in pairs]
    by = _by(float(np.mean(leads)))
    low, high = min(leads), max(leads)
    if len(pairs) > 1 and low * high > 0:
        by += f" ({' to '.join(sorted((_nats(low), _nats(high)), key=float))})"
    elif len(pairs) > 1:
        by += f" ({_by(low)} to {_by(high)})"
    ends = [pair.lead.step[-1] for pair in pairs]
    if not going and all(
        end == pair.dense_step == pair.sparse_curve.step[-1]
        for end, pair in zip(ends, pairs, strict=True)
    ):
        return f"ended {by}"
    at = f"step {ends[0]:,.0f}, the last" if len(set(ends)) == 1 else "the last step"
    return f"{'is' if going else 'was'} {by} at {at} that both have"


def _nats(lead: float) -> str:
    return f"{abs(lead):.2g}"


def _by(lead: float) -> str:
    if abs(lead) < _LEVEL:
        return "level"
    return f"{_nats(lead)} nats {'ahead' if lead > 0 else 'behind'}"


def _in_front(pairs: Sequence[Comparison], going: bool) -> str:
    """From where on it is ahead or behind, as at the end."""
    leads = np.array([pair.final_lead for pair in pairs])
    if not (leads > 0).all() and not (leads < 0).all():
        with_seeds = f"ahead at the end with {(leads > 0).sum()} of {len(pairs)} seeds"
        return f"It {'is' if going else 'was'} {with_seeds}."
    was = "has been" if going else "was"
    side = "ahead" if leads[0] > 0 else "behind"
    if all(pair.always_in_front for pair in pairs):
        return f"It {was} {side} throughout."
    mean, between = _with_range([pair.in_front_from for pair in pairs], "{:,.0f}")
    return f"It {was} {side} from step {mean} on{between}."
