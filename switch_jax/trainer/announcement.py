"""What a run prints before it begins."""

import re

from jax.sharding import Mesh

from switch_jax.config import Config
from switch_jax.model.flops import parameter_count
from switch_jax.train_step.microbatches import routing_groups


def announcement(config: Config, mesh: Mesh) -> list[str]:
    """Lines with the model, data and devices, and with the routing groups of each stack."""
    model = config.model
    kind = f"Switch Transformer, {model.num_experts} experts" if model.num_experts else "dense T5"
    sizes = " x ".join(str(size) for size in mesh.shape.values())
    lines = [
        f"{kind}, {parameter_count(model):,} parameters; {config.data.mixture_or_task_name}; "
        f"mesh {' x '.join(mesh.axis_names)} = {sizes} of {mesh.devices.flat[0].device_kind}"
    ]
    for stack, groups in routing_groups(config, mesh.shape).items():
        lines.append(f"routing in the {stack}: {groups}")
        if groups.warning:
            lines.append(f"warning: {groups.warning}")
    steps, rates = config.run.train_steps, config.optimizer
    if rates.lr_schedule == "constant" and rates.warmup_steps > steps:
        lines.append(
            f"warning: the learning rate rises over WARMUP_STEPS = {rates.warmup_steps:,} steps, "
            f"and the run has {steps:,}: it ends at {steps / rates.warmup_steps:.2g} of "
            "LEARNING_RATE; set WARMUP_STEPS lower"
        )
    return lines


def config_changes(before: str, after: str) -> list[str]:
    """The values that differ between two texts of config.gin, as "NUM_EXPERTS 4 -> 8".

    Left out are MODEL_DIR, and names that only one of them has, as those of other versions.
    """
    old, new = _values(before), _values(after)
    return [
        f"{name} {old[name]} -> {value}"
        for name, value in new.items()
        if old.get(name, value) != value and name != "MODEL_DIR"
    ]


def _values(text: str) -> dict[str, str]:
    lines = re.sub(r"\\\n\s*", "", text).splitlines()  # gin breaks a long line after a backslash
    found = [re.fullmatch(r"([\w./]+) = (.*)", line) for line in lines]
    return {match[1]: match[2] for match in found if match}
