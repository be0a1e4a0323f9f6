"""The learning rates that each optimiser trains with."""

from switch_jax.config import Config

# Lowest and highest peak, with a wide margin: less than a tenth of the recipes' in gin/runs/, and
# three to ten times the best for the demo's small models (docs/training_small_models.md).
_PEAKS = {
    "adafactor": (3e-4, 0.3),
    "adamw": (3e-5, 0.1),
    "adamw_rms": (3e-4, 0.3),
    "muon": (3e-5, 0.1),
}


def rate_problem(config: Config) -> str | None:
    """What is wrong with the peak of the learning rate, if its optimiser does not train with it.

    A run that starts from a checkpoint or from its teacher may have any low rate.
    """
    optimizer, peak = config.optimizer, config.optimizer.peak_learning_rate
    least, most = _PEAKS[optimizer.optimizer]
    distillation = config.distillation
    from_teacher = distillation.teacher_dir is not None and distillation.initialize_from_teacher
    starts_anew = config.run.initial_checkpoint_path is None and not from_teacher
    is_too_low = peak < least and starts_anew
    if not is_too_low and peak <= most:
        return None
    warmup = ""
    if peak != optimizer.learning_rate:  # 'rsqrt' and 'warmup_rsqrt'
        warmup = f" and WARMUP_STEPS = {optimizer.warmup_steps:,}"
    return (
        f"the learning rate is {peak:.2g} at its peak (LR_SCHEDULE = {optimizer.lr_schedule!r} "
        f"with LEARNING_RATE = {optimizer.learning_rate}{warmup}), and OPTIMIZER = "
        f"{optimizer.optimizer!r} trains with {least:g} to {most:g}: add "
        f"--gin_file=runs/{optimizer.optimizer}.gin after the file of the run, or set LEARNING_RATE"
    )
