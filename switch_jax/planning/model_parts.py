"""Which part of the model an operation of the compiled program belongs to."""

import re

# In the order in which they are looked for in an operation's path; the names are those of
# `jax.named_scope` in the code of the parts.
PARTS = (
    "optimizer", "router", "dispatch", "experts", "attention", "dense_ffn", "logits", "embedding",
)  # fmt: skip
OTHER = "other"
_WORDS = re.compile("|".join(rf"\b{part}\b" for part in PARTS))


def part_of(path: str) -> str:
    """The innermost part that an operation's path names; 'other' is norms, residuals and copies."""
    found = _WORDS.findall(path)
    return found[-1] if found else OTHER
