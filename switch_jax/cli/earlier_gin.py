"""Gin files and flags of earlier versions: their names of fields become those of this version."""

import re

from switch_jax.config.renamed_fields import RENAMED

_SCOPE = r"((?:[\w.-]+/)*)"
_ASSIGNMENT = re.compile(rf"^(\s*){_SCOPE}(?:switch_jax\.)?(\w+\.\w+)(\s*=.*)$")
_BLOCK = re.compile(rf"^{_SCOPE}(?:switch_jax\.)?(\w+):\s*(?:#.*)?$")  # `RunConfig:`, fields below
_BLOCK_FIELD = re.compile(r"^(\s+)(\w+)(\s*=.*)$")


def current_name(name: str) -> str:
    """The name, in this version, of a macro or of a field, as [SCOPE/]Config.field."""
    scope, slash, field = name.rpartition("/")
    return scope + slash + RENAMED.get(field.removeprefix("switch_jax."), field)


def current_names(text: str) -> str:
    """The text of a gin file with the names of this version; lines stay where they are."""
    lines, block = [], ""
    for line in text.split("\n"):
        if header := _BLOCK.match(line):
            block = header[2]
        elif line.strip() and not line[0].isspace() and not line.startswith("#"):
            block = ""
        if assignment := _ASSIGNMENT.match(line):
            space, scope, field, value = assignment.groups()
            if field in RENAMED:
                line = f"{space}{scope}{RENAMED[field]}{value}"
        elif block and (assignment := _BLOCK_FIELD.match(line)):
            space, field, value = assignment.groups()
            new = RENAMED.get(f"{block}.{field}", f"{block}.{field}").split(".")[1]
            line = f"{space}{new}{value}"
        lines.append(line)
    return "\n".join(lines)
