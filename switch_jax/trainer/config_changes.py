"""What a start changes in the config of the run that is in MODEL_DIR, by their texts."""

from switch_jax.errors import UserError
from switch_jax.run_folder import config_values, value_of


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
