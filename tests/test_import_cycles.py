"""Packages of switch_jax import each other one way only, in the order of CONTRIBUTING.md.

Imports in functions and under TYPE_CHECKING count, too.
"""

import ast
import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"switch_jax": "switch_jax", "tasks": "switch_jax.tasks", "launch": "switch_jax.launch"}


def sources():
    """The text of each module, by the module's name once installed."""
    found = {}
    for folder, package in FOLDERS.items():
        for file in (ROOT / folder).rglob("*.py"):
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join((package, *parts)).removesuffix(".__init__")
            found[name] = file.read_text()
    return found


def package_of(module):
    """'data' for switch_jax.data.packing, 'utils' for switch_jax.utils.paths, '' for switch_jax."""
    return f"{module}.".split(".")[1]


def imported_packages(modules):
    """For each package the others that its modules import."""
    graph = {package_of(module): set() for module in modules}
    for module, text in modules.items():
        for node in ast.walk(ast.parse(text)):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{module} has a relative import, which is not looked at"
                places = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [p if p in modules else node.module for p in places]
            ours = {package_of(name) for name in names if name.split(".")[0] == "switch_jax"}
            graph[package_of(module)] |= ours - {package_of(module)}
    return graph


def check_one_way(modules):
    graphlib.TopologicalSorter(imported_packages(modules)).prepare()


def test_packages_import_each_other_one_way():
    modules = sources()
    assert {"data", "tasks", "launch", "api", ""} <= {package_of(name) for name in modules}
    check_one_way(modules)


def test_a_package_imports_only_those_that_come_after_it_in_contributing():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    (block,) = re.findall(r"\n((?: {4}.*\n)+)\nA package imports only those", page)
    order = re.findall(r"\w+", block)
    assert {"cli", "trainer", "data", "model", "moe", "config"} <= set(order)
    graph = imported_packages(sources())
    for place, package in enumerate(order):
        assert graph[package].isdisjoint(order[: place + 1]), package


@pytest.mark.parametrize(
    "text",
    [
        "from switch_jax.trainer.train import train",
        "import switch_jax.trainer.train",
        "def late():\n    from switch_jax import trainer",
        "if TYPE_CHECKING:\n    from switch_jax.trainer import train",
    ],
)
def test_a_cycle_is_found_wherever_the_import_stands(text):
    modules = {
        "switch_jax": "from switch_jax import api",
        "switch_jax.api": "",
        "switch_jax.trainer": "",
        "switch_jax.trainer.train": "from switch_jax.inference import decoding",
        "switch_jax.inference": "",
        "switch_jax.inference.decoding": "",
    }
    check_one_way(modules)
    with pytest.raises(graphlib.CycleError) as found:
        check_one_way({**modules, "switch_jax.inference.decoding": text})
    assert {"inference", "trainer"} == set(found.value.args[1])
