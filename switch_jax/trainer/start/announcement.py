"""What a run prints before it begins."""

import jax
from jax.sharding import Mesh

from switch_jax.config import Config
from switch_jax.config.schedules import SCHEDULES
from switch_jax.data.catalogue.lost_text import lost_text
from switch_jax.model.flops import described
from switch_jax.model.parameter_names import in_groups, parameter_shapes
from switch_jax.optim.optimizer import learning_rate_factors, trained_parameters
from switch_jax.partitioning.mesh import readers
from switch_jax.runtime.multihost import run_on_first
from switch_jax.train_step.microbatches import routing_groups
from switch_jax.trainer.start.prepare import Prepared
from switch_jax.trainer.start.resume import ResumePoint
from switch_jax.trainer.start.teacher import describe_teacher
from switch_jax.trainer.start.warm_start import describe_start


def announcement(config: Config, mesh: Mesh) -> list[str]:
    """Lines with the model, data, devices and batch, and with the routing groups of each stack."""
    model = config.model
    lengths = (stack.length(config.data.task_feature_lengths) for stack in model.stacks)
    sizes = " x ".join(str(size) for size in mesh.shape.values())
    lines = [
        f"{described(model)}; {config.data.mixture_or_task_name}; "
        f"mesh {' x '.join(mesh.axis_names)} = {sizes} of {mesh.devices.flat[0].device_kind}",
        f"{config.run.train_steps:,} steps of {config.tokens_per_step:,} tokens: "
        f"{config.run.batch_size:,} rows of {' + '.join(map(str, lengths))}, padding included",
        *reading(config, readers(jax.process_count(), mesh.shape)),
    ]
    for stack, groups in routing_groups(config).items():
        lines.append(f"routing in the {stack}: {groups}")
        if groups.warning:
            lines.append(f"warning: {groups.warning}")
    if config.optimizer.trained_parameters != "all":
        trained, names = trained_parameters(config), parameter_shapes(model).keys()
        lines.append(
            f"TRAINED_PARAMETERS = {config.optimizer.trained_parameters!r}: {len(trained)} arrays "
            f"of {len(names)} are trained: {in_groups(model, trained)}; frozen: "
            f"{in_groups(model, names - set(trained))}"
        )
    if config.optimizer.learning_rate_factors:
        factors = learning_rate_factors(config)
        parts = []
        for factor in sorted(set(factors.values())):
            own = [name for name in factors if factors[name] == factor]
            parts.append(
                f"{factor:g} for {len(own)} arrays of {len(factors)}: {in_groups(model, own)}"
            )
        lines.append(f"LEARNING_RATE_FACTORS: {'; '.join(parts)}")
    steps, rates = config.run.train_steps, config.optimizer
    schedule = SCHEDULES[rates.lr_schedule]
    if schedule.rises and not schedule.falls and rates.warmup_steps > steps:
        lines.append(
            f"warning: the learning rate rises over WARMUP_STEPS = {rates.warmup_steps:,} steps, "
            f"and the run has {steps:,}: it ends at {steps / rates.warmup_steps:.2g} of "
            "its peak; set WARMUP_STEPS lower"
        )
    return lines


def reading(config: Config, readers: int) -> list[str]:
    """A line with what each host reads of the data, where several split the rows of a batch."""
    tokens, streams = config.tokens_read(readers), config.data.data_streams
    if not 1 < readers <= streams:
        return []
    return [f"each host reads {tokens:,} tokens a step, of {streams} streams in all"]


def beginning(prepared: Prepared, saved: ResumePoint | None) -> list[str]:
    """Lines on lost text, where a run starts from, its teacher, and changes of its config."""
    config, teacher, tasks = prepared.config, prepared.teacher, prepared.train_tasks
    said_before = saved is not None and not prepared.changes
    lines = run_on_first(lambda: [] if said_before else lost_text(tasks)) or []
    lines += prepared.warnings
    if teacher is not None:
        lines += describe_teacher(config, teacher)
    if saved is not None:
        folder = config.run.model_dir
        lines.append(f"continuing from the checkpoint of step {saved.step} in {folder}")
        if prepared.before is None:
            lines.append(
                f"{folder} has no config.json to compare this start's config with: write its "
                "settings, also those that no array shows, such as NUM_SELECTED_EXPERTS"
            )
        if prepared.changes:
            lines.append(f"this start changes the run's config: {', '.join(prepared.changes)}")
        lines += saved.anew
    elif prepared.start is not None:
        lines += describe_start(config, prepared.start)
    else:
        lines.append(f"starting from scratch in {config.run.model_dir}")
    return lines


def nothing_to_do(prepared: Prepared, step: int) -> str:
    """What is said of a run that has done all its steps, or has stopped early, at a step."""
    run = prepared.config.run
    done = f"{run.model_dir} is at step {step} of {run.train_steps}: nothing to do"
    if not prepared.changes:
        return done
    return (
        f"{done}, so these changes to the run's config have no effect: "
        f"{', '.join(prepared.changes)}"
    )
