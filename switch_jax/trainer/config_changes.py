"""What a start changes in the config of the run that is in MODEL_DIR, by their texts."""

import shlex

from switch_jax.errors import UserError
from switch_jax.run_folder import RunFolder, config_values, references, value_of

# What the shapes of parameters and of the optimiser's state follow from.
SHAPING = (
    *(
        f"ModelConfig.{field}"
        for field in (
            "num_experts", "num_embeddings", "embed_dim", "mlp_dim", "head_dim", "num_heads",
            "num_encoder_layers", "num_decoder_layers", "sparse_step", "num_encoder_sparse_layers",
            "num_decoder_sparse_layers", "encoder_sparse_layout", "decoder_sparse_layout",
            "expert_mlp_dim", "shared_expert_mlp_dim", "expert_sublayers", "load_balance",
            "activation", "tie_embeddings", "relative_position_buckets",
        )
    ),
    "OptimizerConfig.trained_parameters",
    "OptimizerConfig.min_dim_size_to_factor",
)  # fmt: skip
_MAX_NAMED = 4  # values that a message names


def config_changes(before: str, after: str) -> list[str]:
    """The values that differ between two texts of config.gin, as "NUM_EXPERTS 4 -> 8".

    Left out are MODEL_DIR, and names that only one of them has.
    """
    old, new = config_values(before), config_values(after)
    return [
        f"{name} {old[name]} -> {value}"
        for name, value in new.items()
        # One may have a macro, and the other its value.
        if old.get(name, value) != value
        and value_of(name, old) != value_of(name, new)
        and name != "MODEL_DIR"
    ]


def check_same_task(before: str, after: str, model_dir: str) -> None:
    """Raises UserError where two texts of config.gin have different MIXTURE_OR_TASK_NAMEs.

    Args:
      before: of the run in `model_dir`.
      after: of the start.
      model_dir: what the message calls the run.
    """
    field = "DataConfig.mixture_or_task_name"
    texts = config_values(before), config_values(after)
    if all(field in text for text in texts):
        trained, wanted = (value_of(field, text).strip("'\"") for text in texts)
        if trained != wanted:
            raise UserError(
                f"the run in {model_dir} trains on {trained}, and this start on {wanted}: take "
                "another MODEL_DIR for a new run, or to go on with other data add --change_task "
                "(change_task=True in Python)"
            )


def check_same_shapes(before: str, after: str, name: str, folder: RunFolder) -> None:
    """Raises UserError where two texts of config.gin differ in what shapes follow from.

    Args:
      before: of the run.
      after: of the start.
      name: what the message calls the run's checkpoint.
      folder: the run's.
    """
    old, new = config_values(before), config_values(after)
    changed = {}  # the run's value and the start's, by the name that sets it
    for field in SHAPING:
        if field in old and field in new:
            earlier, value = value_of(field, old), value_of(field, new)
            if value != earlier:
                changed[_setter(field, old, new)] = earlier, value
    if not changed:
        return
    names = list(changed)[:_MAX_NAMED]
    more = f" and {len(changed) - _MAX_NAMED} more" if len(changed) > _MAX_NAMED else ""
    flags = " ".join(f"--gin.{n}={changed[n][0]}" for n in names)
    if more or any("." in n for n in names):
        flags = f"--gin_file={shlex.quote(str(folder.config))}"
    raise UserError(
        f"{name} does not fit: the run has "
        f"{', '.join(f'{n} = {changed[n][0]}' for n in names)}{more}, and this start "
        f"{', '.join(f'{n} = {changed[n][1]}' for n in names)}{more}: write {flags} to go on with "
        "it, or another MODEL_DIR for a new run"
    )


def _setter(field: str, old: dict[str, str], new: dict[str, str]) -> str:
    """The macro that sets a field in the new text, if it has its value in the old; or the field."""
    return next(
        name
        for name in reversed(references(field, new))
        if name in old and value_of(name, old) == value_of(field, old)
    )
