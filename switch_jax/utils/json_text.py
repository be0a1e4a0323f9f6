"""JSON from files that others have written."""

import json
from typing import Any

from switch_jax.utils.errors import not_utf8


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text; ValueError where it is none, no UTF-8, or nests too deeply."""
    try:
        return json.loads(text)
    except UnicodeDecodeError as error:
        raise ValueError(not_utf8(error.start)) from error
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error
