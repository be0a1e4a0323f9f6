"""The pages that are made from the code: all of it is on them."""

import dataclasses
import inspect
import re

import pytest

import switch_jax
from switch_jax import exit_codes
from switch_jax.cli import COMMANDS, make_parser
from switch_jax.config import PARTS
from switch_jax.launch import restarts
from tests.docs.pages import DOCS, ROOT, reference

CONFIGS = list(PARTS.values())


def test_every_macro_of_every_gin_file_is_on_the_page():
    page = reference.macros_page()
    texts = [file.read_text() for file in (ROOT / "gin").rglob("*.gin")]
    macros = {name for text in texts for name in re.findall(r"^([A-Z]\w*) =", text, re.M)}
    assert len(macros) > 90
    for name in macros:
        assert page.count(f"| [`{name}`](") == 1, name


def test_a_row_has_the_field_the_value_the_meaning_and_the_comment_of_a_macro():
    (row,) = [r for r in reference.macros_page().splitlines() if "`TRAIN_STEPS`" in r[:20]]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    link = "[`TRAIN_STEPS`](configs.md#runconfig)"
    assert cells[:2] == [link, "`550000`"]
    assert cells[2].startswith("Optimiser steps in all")
    assert cells[2].endswith(" From 1 to 2,147,483,647. *section 4.1*")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_every_field_of_a_config_is_explained(config):
    page = (DOCS / "reference/configs.md").read_text()
    for cls in reference.classes_of(config.__name__):
        assert f"::: switch_jax.config.{cls.__name__}\n" in page
        assert getattr(switch_jax.config, cls.__name__) is cls
    meanings = reference.field_meanings(config.__name__)
    assert set(meanings) == {field.name for field in dataclasses.fields(config)}
    assert all(meanings.values())


def test_a_macro_leads_to_the_part_of_the_model_that_has_its_field():
    rows = reference.macros_page().splitlines()
    for macro, part in [
        ("NUM_EXPERTS", "expertsconfig"),
        ("GROUP_SIZE", "modelconfig"),
        ("HEAD_DIM", "attentionconfig"),
    ]:
        assert any(f"| [`{macro}`](configs.md#{part})" in row for row in rows)


def test_every_flag_of_every_command_is_on_the_page():
    page = reference.commands_page()
    sections = dict(part.split("\n", 1) for part in page.split("\n## switch_jax ")[1:])
    assert list(sections) == list(COMMANDS)
    for name, parser in reference.commands_of(make_parser()).items():
        for flag in parser._option_string_actions.keys() - {"-h", "--help"}:
            assert f"`{flag}" in sections[name]


def test_every_public_name_is_on_the_page_of_python():
    page, configs = ((DOCS / f"reference/{name}.md").read_text() for name in ("python", "configs"))
    for name in set(switch_jax.__all__) - {"__version__"}:
        if name.endswith("Config"):
            assert f"`{name}`" in page.replace("switch_jax.", "")
            assert f"::: switch_jax.config.{name}\n" in configs
        else:
            assert f"::: switch_jax.{name}\n" in page


def test_a_checkout_has_the_signatures_and_first_lines_of_python():
    page = (DOCS / "reference/python.md").read_text()
    sections = dict(part.split("\n", 1) for part in page.split("\n## ::: switch_jax.")[1:])
    assert sections["route"].partition("\n\n")[0].splitlines() == [
        "    # def route("
        "model: InteractiveModel, text: str, target: str | None = None) -> dict[str, Routing]:",
        '    #     """The expert and the gate of each token by each router."""',
    ]
    model = switch_jax.InteractiveModel
    functions = [getattr(switch_jax, n) for n in ("load_config", "train", "evaluate", "load")]
    for thing in [*functions, model.generate, model.score]:
        text = sections[thing.__qualname__.partition(".")[0]]
        assert f'"""{inspect.getdoc(thing).splitlines()[0]}"""\n' in text
        for parameter in inspect.signature(thing).parameters:
            assert re.search(rf"[ (*]{parameter}[:,]", text), parameter
    assert "    #     experts: np.ndarray\n" in sections["Routing"]
    assert "- [`switch_jax.RunConfig`](configs.md#runconfig): One training run.\n" in page


def test_the_page_of_exit_codes_has_those_of_the_code():
    page = (DOCS / "exit_codes.md").read_text()
    codes = {code for name, code in vars(exit_codes).items() if name.isupper()} & set(range(256))
    assert codes == {0, 1, 2, 3, 4, 75, 130, 137, 141, 143, 255}
    for code in codes:
        assert f"| {code} |" in page or f", {code} |" in page


def test_the_page_of_exit_codes_has_the_rules_of_launch():
    page = " ".join((DOCS / "exit_codes.md").read_text().split())
    *few, last = map(str, sorted(restarts.FINAL))
    assert f"- {', '.join(few)} and {last}: it ends with that code" in page
    first = (*restarts._FIRST, *restarts.BEFORE_CRASHES)
    assert f"the list {', '.join(map(str, first))} that" in page
    assert f"the list is {', '.join(map(str, restarts.BEFORE_CRASHES))}," in page


@pytest.mark.parametrize("name", reference.PAGES)
def test_a_page_is_what_the_code_says(name):
    written = (DOCS / "reference" / name).read_text(encoding="utf-8")
    assert written == reference.PAGES[name](), "write it again: python -m tools.reference"
