"""Parses JSON from files that others have written."""

import json
from typing import Any

from switch_jax.utils.errors import not_utf8


def parse_json(text: str | bytes) -> Any:
    """Parses a JSON text; ValueError if it is not JSON, not UTF-8, or nests too deeply."""
    try:
        return json.loads(text)
    except UnicodeDecodeError as error:
        raise ValueError(not_utf8(error.start)) from error
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error
