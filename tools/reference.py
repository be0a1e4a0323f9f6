"""Writes the pages of docs/reference that follow from the code: commands, macros, Python's names.

    python -m tools.reference

`make docs` runs it. The pages are in the repository, so that links lead to them there too; a test
says when they are out of date.
"""

import argparse
import ast
import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import switch_jax
from switch_jax.cli import make_parser
from switch_jax.config import PARTS
from switch_jax.utils.fields import Range, hints_of, notes_of

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs/reference"
CLASSES = {config.__name__: config for config in PARTS.values()}  # as gin files name them

# The public names but the configs, in the order in which a program meets them.
FUNCTIONS_AND_CLASSES = (
    *("load_config", "train", "evaluate", "load", "InteractiveModel", "route", "Routing"),
    *("UserError", "Stopped"),
)

# The files whose macros describe a run, a model and a Switch model. Those of the other files of
# gin/runs come after them; the other models set the same macros.
GIN_FILES = ["runs/pretrain.gin", "models/t5_base.gin", "models/switch_base.gin"]


def main() -> None:
    """Writes all pages."""
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")


# Commands, from their parsers.


def commands_page() -> str:
    """Every command with its help and its flags."""
    parsers = commands_of(make_parser())
    lines = [
        "# Commands",
        "",
        "What `switch_jax COMMAND --help` prints, made from the same parsers. Exit codes:",
        "[exit codes](../exit_codes.md).",
        "",
    ]
    for name, parser in parsers.items():
        lines += [f"## switch_jax {name}", "", _linked((parser.description or "").strip()), ""]
        for group in parser._action_groups:
            rows = [_flag_row(a) for a in group._group_actions if a.dest != "help"]
            if rows:
                is_named = group.title not in ("options", "positional arguments")
                lines += [f"{(group.title or '').capitalize()}:", ""] if is_named else []
                lines += _stacked(_table(["flag", "default", "what it does"], rows))
    return "\n".join(lines)


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the commands; argparse has no public way to list what a parser takes."""
    (commands,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return commands.choices


def _flag_row(action: argparse.Action) -> list[str]:
    value = ""
    if action.nargs != 0:
        choices = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else ""
        value = str(action.metavar or choices or action.dest.upper())
    flags = ", ".join(f"`{f}{'=' if value else ''}{value}`" for f in action.option_strings)
    is_default_shown = action.default not in (None, "", False, [], argparse.SUPPRESS)
    default = f"`{action.default}`" if is_default_shown else ""
    text = (action.help or "") % (vars(action) | {"prog": "switch_jax"})
    text = re.sub(r"; default: \S+$", "", text) if default else text
    is_required = action.required and action.nargs not in ("*", "?")
    return [flags or f"`{value}`", "required" if is_required else default, _linked(text)]


# Macros, from the gin files and the docstrings of the dataclasses that they set.


@dataclasses.dataclass
class Macro:
    """A macro of a gin file.

    Attributes:
      name: in capitals.
      value: as the file has it.
      comment: what the file says beside it: choices, or where the value is from.
      fields: what it sets, as ('RunConfig', 'train_steps').
    """

    name: str
    value: str
    comment: str
    fields: list[tuple[str, str]]

    @property
    def meaning(self) -> str:
        """From the docstring of the dataclass, and the range from the field's annotation."""
        meanings = [_sentence(field_meanings(c).get(f, "")) for c, f in self.fields]
        allowed = [a for c, f in self.fields for a in notes_of(hints_of(CLASSES[c])[f])]
        ranges = [_sentence(str(a)) for a in allowed if isinstance(a, Range)]
        return " ".join(dict.fromkeys([*meanings, *ranges]))


def macros_of(file: str) -> list[Macro]:
    """The macros that a gin file gives a value, in its order."""
    text = (ROOT / "gin" / file).read_text(encoding="utf-8")
    fields: dict[str, list[tuple[str, str]]] = {}
    for config, field, macro in re.findall(r"^(\w+Config)\.(\w+) = %(\w+)$", text, re.M):
        fields.setdefault(macro, []).append((config, field))
    values = re.findall(r"^([A-Z]\w*) = (.+?)(?: +#[ ]*(.*))?$", text, re.M)
    return [Macro(n, value, comment, fields.get(n, [])) for n, value, comment in values]


def field_meanings(config: str) -> dict[str, str]:
    """What the docstrings of a config and its parts say of each of its fields."""
    meanings: dict[str, str] = {}
    for cls in classes_of(config):
        attributes = (inspect.getdoc(cls) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
        found = re.findall(r"^  (\w[\w, ]*): (.+(?:\n    .+)*)", attributes, re.M)
        meanings |= {n: " ".join(t.split()) for names, t in found for n in names.split(", ")}
    return meanings


def classes_of(config: str) -> list[type]:
    """The config and the parts that it inherits fields from."""
    return [cls for cls in CLASSES[config].__mro__ if "__annotations__" in vars(cls)]


def macros_page() -> str:
    """Every macro with its default, its meaning and the field that it sets."""
    lines = [
        "# Macros",
        "",
        "Every macro of the gin files, with the value that the file has. [Configs](../configs.md)",
        "says how files are combined. The name of a macro leads to the dataclass whose field it",
        "sets. In italics is the comment of the file: choices, or where the value is from.",
        "",
    ]
    known: set[str] = set()
    for file in [*GIN_FILES, *_further_files()]:
        macros = [m for m in macros_of(file) if m.fields and m.name not in known]
        if not macros:
            continue
        known |= {macro.name for macro in macros}
        rows = _table(["macro", "value", "what it is"], map(_row, macros))
        lines += [f"## {file}", "", *_stacked(rows)]
    return "\n".join(lines)


def _further_files() -> list[str]:
    files = sorted(str(p.relative_to(ROOT / "gin")) for p in (ROOT / "gin").rglob("*.gin"))
    return [file for file in files if file not in GIN_FILES]


def _row(macro: Macro) -> list[str]:
    config, field = macro.fields[0]
    (cls,) = [cls for cls in classes_of(config) if field in cls.__annotations__]
    link = f"[`{macro.name}`](configs.md#{cls.__name__.lower()})"
    comment = f" *{_escaped(macro.comment)}*" if macro.comment else ""
    return [link, f"`{macro.value}`", _linked(macro.meaning) + comment]


# What Python programs call, from its source.


def python_page() -> str:
    """Every public name, with its signature and the first line of its docstring.

    The site has the whole docstring instead: mkdocstrings takes the block below such a heading for
    options, in YAML, where each of its lines is a comment.
    """
    lines = [
        "# Python",
        "",
        "What `import switch_jax` offers: [from Python](../python.md) has examples, and",
        "`help(switch_jax.load)` prints a whole docstring. These names are kept stable between",
        "versions, with a line in the [changelog](../changelog.md) when one changes; everything",
        "else may change:",
        "",
        "- those of `switch_jax.__all__`, which are on this page;",
        "- for [tasks](../own_tasks.md), `VOCABULARY`, `as_targets` and `STEPS_OF_LINES` of",
        "  `switch_jax.tasks.english`, and `switch_jax.tasks.building_blocks`, which was",
        "  `switch_jax.tasks.span_corruption` and is found under that name, too.",
        "",
    ]
    for name in FUNCTIONS_AND_CLASSES:
        outline = [f"    # {line}".rstrip() for line in _outline(getattr(switch_jax, name))]
        lines += [f"## ::: switch_jax.{name}", *outline, ""]
    lines += [
        "## Config and its parts",
        "",
        "These are [dataclasses](configs.md), whose fields the [macros](macros.md) set:",
        "",
    ]
    for name in [name for name in switch_jax.__all__ if name.endswith("Config")]:
        first = (inspect.getdoc(getattr(switch_jax, name)) or "").splitlines()[0]
        lines.append(f"- [`switch_jax.{name}`](configs.md#{name.lower()}): {first}")
    return "\n".join([*lines, ""])


def _outline(thing: Callable[..., object]) -> list[str]:
    """Its source up to the docstring's first line; of a class, also its fields and methods."""
    source = inspect.getsource(thing)
    lines = source.splitlines()
    (node,) = ast.parse(source).body
    members = node.body if isinstance(node, ast.ClassDef) else []

    def beginning(of: ast.AST) -> list[str]:
        assert isinstance(of, ast.FunctionDef | ast.ClassDef)
        *signature, first = lines[of.lineno - 1 : of.body[0].lineno]
        return [*signature, first.removesuffix('"""') + '"""']

    fields = [lines[member.lineno - 1] for member in members if isinstance(member, ast.AnnAssign)]
    # By name, so that of a function with overloads the last one is left.
    methods = {member.name: member for member in members if isinstance(member, ast.FunctionDef)}
    public = [["", *beginning(method)] for name, method in methods.items() if name[0] != "_"]
    return [*beginning(node), *fields, *(line for method in public for line in method)]


# Markdown.


def _table(heading: list[str], rows: Iterable[list[str]]) -> list[str]:
    lines = [heading, ["---"] * len(heading), *rows]
    return ["| " + " | ".join(c.replace("|", r"\|") for c in line) + " |" for line in lines]


def _stacked(table: list[str]) -> list[str]:
    """A table whose cells are below each other where the screen is narrow (assets/site.css)."""
    return ['<div class="stacked" markdown>', "", *table, "", "</div>", ""]


def _escaped(text: str) -> str:
    return re.sub(r"([*_<>\[\]])", r"\\\1", text)


def _linked(text: str) -> str:
    """With links where the text names a page of the docs."""
    return re.sub(r"\bdocs/(\w+)\.md", r"[\1](../\1.md)", text)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "." * (not text.endswith("."))


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands_page,
    "macros.md": macros_page,
    "python.md": python_page,
}

if __name__ == "__main__":
    main()
