"""Gin files and flags of earlier versions: their names of fields become those of this version."""

import re

from switch_jax.config.renamed_fields import RENAMED

_ASSIGNMENT = re.compile(r"^(\s*)([\w./-]+)(\s*=.*)$")
# The head of a block, `RunConfig:`; its fields stand below, indented.
_BLOCK = re.compile(r"^(?:[\w.-]+/)*(?:switch_jax\.)?(\w+):\s*(?:#.*)?$")


def current_name(name: str) -> str:
    """The name, in this version, of a macro or of a field, as [SCOPE/]Config.field."""
    scope, slash, field = name.rpartition("/")
    return scope + slash + RENAMED.get(field.removeprefix("switch_jax."), field)


def current_names(text: str) -> str:
    """The text of a gin file with the names of this version; lines stay where they are."""
    lines, block = [], ""
    for line in text.split("\n"):
        if header := _BLOCK.match(line):
            block = f"{header[1]}."
        elif line.strip() and not line[0].isspace() and not line.startswith("#"):
            block = ""
        if assignment := _ASSIGNMENT.match(line):
            space, name, value = assignment.groups()
            prefix = "" if "." in name else block
            line = space + current_name(prefix + name).removeprefix(prefix) + value
        lines.append(line)
    return "\n".join(lines)
