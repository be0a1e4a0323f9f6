"""The status of runs as text: several lines about one run, or a line for each of several."""

from collections.abc import Sequence

from switch_jax.reports.run_status import Status
from switch_jax.run_folder import MAX_WAITING, RunPhase, training_seconds
from switch_jax.units import aligned, count, duration, percent


def page(status: Status) -> list[str]:
    """Lines about one run: first the folder and the state, then a name and a value each."""
    last_write = f"{duration(status.silence)} ago"
    if status.state in (RunPhase.STARTING, RunPhase.RUNNING):
        last_write += f"; stalled after {duration(status.silence_limit)}"
    rows = [
        ("step", _steps(status)),
        ("loss", _loss(status)),
        ("held out", _held_out(status)),
        ("speed", _speed(status)),
        ("goodput", _goodput(status)),
        ("checkpoint", _checkpoint(status)),
        ("last write", last_write),
        ("health", "; ".join(health(status)) or "nothing unusual"),
    ]
    return [f"{status.folder}: {_state(status)}", *(f"  {name:<11}{text}" for name, text in rows)]


def table(found: Sequence[Status]) -> list[str]:
    """A line for each run, below a heading."""
    rows = [("run", "state", "step", "loss", "tokens/s", "left", "checkpoint", "health")]
    for status in found:
        steps = f"{status.step:,}"
        rows.append(
            (
                status.folder,
                status.state,
                f"{steps}/{status.train_steps:,}" if status.train_steps else steps,
                _loss(status),
                "-" if status.tokens_per_second is None else count(status.tokens_per_second),
                "-" if not status.seconds_left else duration(status.seconds_left),
                "-" if status.checkpoint is None else f"{status.checkpoint:,}",
                "; ".join(health(status)) or "-",
            )
        )
    return aligned(rows)


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


def _state(status: Status) -> str:
    early = status.train_steps is not None and status.step < status.train_steps
    state = "finished early" if status.state == RunPhase.FINISHED and early else status.state
    return f"{state}: {status.message}" if status.message else state


def _steps(status: Status) -> str:
    if not status.train_steps:
        return f"{status.step:,}"
    text = f"{status.step:,} of {status.train_steps:,}"
    return f"{text}, {duration(status.seconds_left)} left" if status.seconds_left else text


def _loss(status: Status) -> str:
    return "-" if status.loss is None else f"{status.loss:.4g}"


def _held_out(status: Status) -> str:
    if status.held_out is None:
        return "-"
    return (
        f"negative log perplexity {status.held_out:.4f} of {status.held_out_task} "
        f"at step {status.held_out_step:,}"
    )


def _speed(status: Status) -> str:
    if status.tokens_per_second is None:
        return "-"
    text = f"{count(status.tokens_per_second)} tokens/s"
    chip = status.tokens_per_second_per_chip
    return text if chip is None else f"{text}, {count(chip)} per chip"


def _goodput(status: Status) -> str:
    if status.goodput is None:
        return "-"
    total = sum(status.spent.values())
    text = f"{percent(status.goodput)} of {duration(total)} in steps"
    rest = [f"{kind} {duration(x)}" for kind, x in status.spent.items() if kind != "step" and x]
    return f"{text}; {', '.join(rest)}" if rest else text


def _checkpoint(status: Status) -> str:
    if status.checkpoint is None:
        return "none yet"
    text = f"step {status.checkpoint:,}"
    return (
        text if status.checkpoint_age is None else f"{text}, {duration(status.checkpoint_age)} ago"
    )
