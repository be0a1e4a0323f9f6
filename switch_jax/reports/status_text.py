"""The status of runs as text: several lines about one run, or a line for each of several."""

from collections.abc import Callable, Sequence
from typing import Any

from switch_jax.reports.run_status import Status
from switch_jax.run_folder import MAX_WAITING, RunPhase, training_seconds
from switch_jax.units import aligned, beside_baseline, count, duration, percent


def page(status: Status) -> list[str]:
    """Lines about one run: first the folder and the state, then a name and a value each."""
    s = status
    early = s.train_steps is not None and s.step < s.train_steps
    state = "finished early" if s.state == RunPhase.FINISHED and early else s.state
    goes_on = s.state in (RunPhase.STARTING, RunPhase.RUNNING)
    rows = {
        "step": (f"{s.step:,}" + _known(" of {:,}", s.train_steps or None))
        + (f", {duration(s.seconds_left)} left" if s.train_steps and s.seconds_left else ""),
        "loss": _known("{:.4g}", s.loss, "-"),
        "held out": held_out(s) or "-",
        "speed": _known("{} tokens/s", s.tokens_per_second, "-", count)
        + _known(", {} per chip", s.tokens_per_second_per_chip, form=count),
        "goodput": _goodput(s),
        "checkpoint": _known("step {:,}", s.checkpoint, "none yet")
        + _known(", {} ago", s.checkpoint_age, form=duration),
        "last write": f"{duration(s.silence)} ago"
        + (f"; stalled after {duration(s.silence_limit)}" if goes_on else ""),
        "health": "; ".join(health(s)) or "nothing unusual",
    }
    head = f"{s.folder}: {state}: {s.message}" if s.message else f"{s.folder}: {state}"
    return [head, *(f"  {name:<11}{text}" for name, text in rows.items())]


def table(found: Sequence[Status]) -> list[str]:
    """A line for each run, below a heading."""
    rows = [
        (
            s.folder,
            s.state,
            f"{s.step:,}" + _known("/{:,}", s.train_steps or None),
            _known("{:.4g}", s.loss, "-"),
            _known("{}", s.tokens_per_second, "-", count),
            _known("{}", s.seconds_left or None, "-", duration),
            _known("{:,}", s.checkpoint, "-"),
            "; ".join(health(s)) or "-",
        )
        for s in found
    ]
    heads = ("run", "state", "step", "loss", "tokens/s", "left", "checkpoint", "health")
    return aligned([heads, *rows])


def held_out(status: Status) -> str:
    """The last evaluation, the task's own metrics first; empty if there was none."""
    if status.held_out_step is None:
        return ""
    values = []
    if status.own_metrics:
        values.append(beside_baseline(status.own_metrics, status.majority_baseline))
    if status.held_out is not None:
        values.append(f"negative log perplexity {status.held_out:.4f}")
    return f"{', '.join(values) or '-'} of {status.held_out_task} at step {status.held_out_step:,}"


def health(status: Status) -> list[str]:
    """What is unusual about a run; empty if nothing is."""
    found = []
    if status.loss_rise:
        found.append(loss_rise(*status.loss_rise))
    if status.dead_experts:
        found.append(f"{status.dead_experts:,} of {status.experts:,} experts got no token")
    if status.dropped is not None and status.dropped > 0.1:
        found.append(f"{percent(status.dropped)} of the tokens dropped")
    training = training_seconds(status.spent) if status.spent else 0.0
    if training and status.spent["data"] > MAX_WAITING * training:
        waiting = percent(status.spent["data"] / training)
        found.append(
            f"{waiting} of the time without compilation, evaluations and checkpoints was spent "
            "waiting for data (if they are small: fewer DATA_STREAMS in a new run)"
        )
    if status.skipped_steps:
        found.append(f"bad steps skipped: {status.skipped_steps:,}")
    if status.rollbacks:
        found.append(f"returns to a checkpoint: {status.rollbacks:,}")
    if status.damaged_checkpoints:
        found.append(f"damaged checkpoints: {', '.join(status.damaged_checkpoints)}")
    if status.hanging:
        found.append(f"steps that took too long: {', '.join(status.hanging)}")
    return found


def loss_rise(first: float, last: float) -> str:
    """That the loss has risen since the start of the run; see `Status.loss_rise`."""
    return (
        f"the loss has risen from {first:.4g} to {last:.4g}: is LEARNING_RATE too high, or is the "
        "data another one?"
    )


def _known(
    text: str, value: float | None, otherwise: str = "", form: Callable[[Any], Any] = lambda x: x
) -> str:
    """The text with the value in it; or what stands there where the value is not known."""
    return otherwise if value is None else text.format(form(value))


def _goodput(status: Status) -> str:
    if status.goodput is None:
        return "-"
    total = sum(status.spent.values())
    text = f"{percent(status.goodput)} of {duration(total)} in steps"
    rest = [f"{kind} {duration(x)}" for kind, x in status.spent.items() if kind != "step" and x]
    return f"{text}; {', '.join(rest)}" if rest else text
