"""The fields in docs/run_folder.md, and whether a record is as it says."""

import re
from pathlib import Path
from typing import Any, NamedTuple

PAGE = Path(__file__).parents[2] / "docs/run_folder.md"
STACKS = ("encoder", "decoder")


class Row(NamedTuple):
    type: str
    meaning: str


def tables() -> dict[str, dict[str, Row]]:
    """Rows by heading and field; one with STACK is two, of the encoder and of the decoder."""
    found: dict[str, dict[str, Row]] = {}
    rows: dict[str, Row] = {}
    text = re.sub(r"\n  (?=\S)", " ", PAGE.read_text(encoding="utf-8"))  # an item a line
    for line in text.splitlines():
        if line.startswith("#"):
            rows = found.setdefault(line.lstrip("# ").replace("`", ""), {})
        elif match := re.fullmatch(r"- `([^`]+)`(?: \(([^)]+)\))?: (.+)", line):
            field, type_name, meaning = match.groups()
            row = Row(type_name or "number", meaning)
            for stack in STACKS if "STACK" in field else [""]:
                rows[field.replace("STACK", stack)] = row
    return {heading: rows for heading, rows in found.items() if rows}


def table_of(kind: str) -> dict[str, Row]:
    """The fields of a record: of all records, and of its kind."""
    return {**tables()["Fields of all records"], **tables()[f"Kind {kind}"]}


def problems(record: dict[str, Any], table: dict[str, Row]) -> list[str]:
    """What of a record is not documented, or of another type."""
    found = []
    for field, value in _values(record, table):
        if field not in table:
            found.append(f"{field} is not in the table")
        elif not _is_a(value, table[field].type):
            found.append(f"{field} is {value!r}, not of type {table[field].type}")
    return found


def _values(record: dict[str, Any], table: dict[str, Row], prefix: str = ""):
    for name, value in record.items():
        field = prefix + name
        yield field, value
        is_documented = field in table and table[field].type in ("object", "object or null")
        if isinstance(value, dict) and is_documented:
            yield from _values(value, table, f"{field}.")


def _is_a(value: Any, type_name: str) -> bool:
    if type_name.endswith(" or null"):
        return value is None or _is_a(value, type_name.removesuffix(" or null"))
    if match := re.fullmatch(r"(\w+) \[N(, E)?\]", type_name):
        items = f"{match[1]} [N]" if match[2] else match[1]
        return isinstance(value, list) and all(_is_a(item, items) for item in value)
    if match := re.fullmatch("object of ([^:]*)(?:: (.*))?", type_name):
        if not isinstance(value, dict):
            return False
        known = match[2].split(", ") if match[2] else value
        return set(value) <= set(known) and all(_is_a(item, match[1]) for item in value.values())
    if type_name.startswith("string: "):
        return value in type_name.removeprefix("string: ").split(", ")
    types: dict[str, type | tuple[type | None, ...]] = {
        "number": (int, float, type(None)),  # null stands for NaN and infinities
        "integer": int,
        "string": str,
        "object": dict,
    }
    return isinstance(value, types[type_name.removesuffix("s")]) and not isinstance(value, bool)
