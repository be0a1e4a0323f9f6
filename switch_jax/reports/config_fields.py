"""What the text of a config.gin means."""

import dataclasses
from typing import Any

from switch_jax.config import Config
from switch_jax.run_folder import config_values, value_of

_PARTS: list[Any] = [
    part.type for part in dataclasses.fields(Config) if dataclasses.is_dataclass(part.type)
]
_DEFAULTS = {
    f"{part.__name__}.{field.name}": repr(field.default)
    for part in _PARTS
    for field in dataclasses.fields(part)
    if field.default is not dataclasses.MISSING
}


def config_fields(text: str) -> dict[str, str]:
    """The value of each field, as "ModelConfig.num_experts", by its name.

    A field that the text lacks has its default. Values of macros stand in
    place of the macros, and 1 in place of 1.0. Empty where the text sets nothing.
    """
    values = config_values(text)
    if not values:
        return {}
    fields = {name: value_of(name, values) for name in values if "." in name}
    return {name: value.removesuffix(".0") for name, value in (_DEFAULTS | fields).items()}
