"""Finds the part of the model that an operation of the compiled program belongs to."""

import re

# The names of `jax.named_scope` in the model's code.
TEACHER = "teacher"  # all of its forward pass
MODEL_PARTS = (
    "optimizer",
    "router",
    "dispatch",
    "experts",
    "attention",
    "dense_ffn",
    "logits",
    TEACHER,
)
OTHER = "other"  # embedding, norms, residuals and copies
_SCOPES = re.compile("|".join(rf"\b{part}\b" for part in MODEL_PARTS))


def model_part(op_name: str) -> str:
    """Finds the innermost model part in an operation's scopes, or 'other', or 'teacher'."""
    scopes = _SCOPES.findall(op_name)
    if TEACHER in scopes:
        return TEACHER
    return scopes[-1] if scopes else OTHER
