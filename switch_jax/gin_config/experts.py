"""NUM_EXPERTS of a dense model: files of runs set macros that their model does not use, but nobody
sets this one for a dense model."""

from collections.abc import Sequence

from switch_jax.config import ModelConfig
from switch_jax.errors import UserError
from switch_jax.gin_config import gin_internals
from switch_jax.gin_config.checks import describes
from switch_jax.gin_config.packaged import is_packaged, packaged_including

_SPARSE = "models/switch_base.gin"  # which gives every file that comes after it experts


def check_model_has_experts(bindings: Sequence[str], files: Sequence[str]) -> None:
    """Raises UserError where NUM_EXPERTS is set, in files or by a binding, and no value uses it.

    Args:
      bindings: as for `read`; they are not set yet.
      files: that were read, the outermost first.
    """
    if "NUM_EXPERTS" in gin_internals.used_macros():
        return
    value = gin_internals.macros().get("NUM_EXPERTS")
    if value is None and describes(ModelConfig, gin_internals.bindings()):
        given = [b.partition("=") for b in bindings if "=" in b]
        value = next((value for name, _, value in given if name.strip() == "NUM_EXPERTS"), None)
    if value is not None:
        raise UserError(f"NUM_EXPERTS = {value} is for a model with experts, and {_advice(files)}")


def _advice(files: Sequence[str]) -> str:
    """Which file to take in the place of the dense model's."""
    dense = next((f for f in files if f.startswith("models/") and is_packaged(f)), None)
    if dense is None:
        return f"the model is dense: include {_SPARSE}, and set what differs"
    with_experts = [_SPARSE, *packaged_including(_SPARSE)]
    twins = [f for f in packaged_including(dense) if f in with_experts and f[:7] == "models/"]
    if not twins:
        return (
            f"{dense} is dense: take a gin file in its place with the lines include '{_SPARSE}' "
            f"and include '{dense}', in this order"
        )
    runs = [f for twin in twins for f in packaged_including(twin) if f[:5] == "runs/"]
    included = f" (included in {', '.join(runs)})" if runs else ""
    return f"{dense} is dense: take {' or '.join(twins)} in its place{included}"
