"""What is installed, and what a wheel holds."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import defaultdict
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_every_installed_module_has_one_owner():
    """t5 asks for nightly builds that overwrite the modules of seqio and tensorflow-datasets."""
    owners = defaultdict(set)
    for distribution in distributions():
        name = distribution.name  # which reads its metadata
        for file in distribution.files or []:
            if file.suffix in {".py", ".so"} and ".." not in file.parts:
                owners[str(file)].add(name)
    assert owners["seqio/__init__.py"] == {"seqio"}
    assert {file: names for file, names in owners.items() if len(names) > 1} == {}


@pytest.mark.parametrize(
    "package",
    [
        *("checkpointing", "conversion", "conversion/hugging_face", "conversion/t5x"),
        *("data", "evaluation", "gin_config", "inference", "reports"),
        "run_folder",
    ],
)
def test_a_package_that_lists_its_modules_lists_all(package):
    """In the docstring of its __init__.py."""
    init = ROOT / "switch_jax" / package / "__init__.py"
    words = set(re.findall(r"\w+", ast.get_docstring(ast.parse(init.read_text()))))
    modules = {file.stem for file in init.parent.glob("*.py")} - {"__init__"}
    assert modules - words == set()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Builds a wheel from a copy of the checkout and unpacks it; returns the folder."""
    folder = tmp_path_factory.mktemp("wheel")
    checkout = folder / "checkout"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("switch_jax", "gin", "launch", "tasks"):
        shutil.copytree(ROOT / name, checkout / name, ignore=ignore)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(checkout)]
    subprocess.run(command, check=True)
    (archive,) = folder.glob("*.whl")
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_wheel_holds_the_library_the_configs_and_the_tasks(wheel):
    inside = {name: f"switch_jax/{name}" for name in ("gin", "launch", "tasks")}
    places = {"switch_jax": "switch_jax", **inside}
    expected = {
        place / file.relative_to(ROOT / source)
        for source, place in places.items()
        for file in (ROOT / source).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    found = {file.relative_to(wheel) for file in wheel.rglob("*") if file.is_file()}
    assert {file for file in found if ".dist-info" not in file.parts[0]} == expected


def test_wheel_finds_its_configs_and_tasks_from_an_empty_folder(wheel, tmp_path):
    code = (
        "import importlib.util, switch_jax.utils.paths;"
        "print(switch_jax.utils.paths.GIN_DIR);"
        "print(importlib.util.find_spec('switch_jax.tasks').submodule_search_locations[0])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(wheel)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert result.stdout.split() == [str(wheel / "switch_jax/gin"), str(wheel / "switch_jax/tasks")]


# As the finder of an editable install, which knows the packages of one clone by their names.
_EDITABLE = """
import importlib.util, sys

class Finder:
    def find_spec(name, path=None, target=None):
        if name in ("switch_jax.tasks", "switch_jax.launch"):
            file = f"{sys.argv[1]}/{name.partition('.')[2]}/__init__.py"
            return importlib.util.spec_from_file_location(name, file)

sys.meta_path[:] = [f for f in sys.meta_path if "Editable" not in str(f)] + [Finder]
import switch_jax, switch_jax.launch, switch_jax.tasks
for module in (switch_jax, switch_jax.launch, switch_jax.tasks):
    print(module.__file__)
"""


def test_tasks_and_launch_are_of_the_same_clone_as_the_library(tmp_path):
    """Also where another clone is installed, and where none is."""
    for clone in ("installed", "other"):
        for name in ("switch_jax", "tasks", "launch"):
            (tmp_path / clone / name).mkdir(parents=True)
            (tmp_path / clone / name / "__init__.py").touch()
        for name in ("__init__.py", "version.py"):
            shutil.copy(ROOT / "switch_jax" / name, tmp_path / clone / "switch_jax")
    other = tmp_path / "other"
    for installed in (tmp_path / "installed", tmp_path / "nowhere"):
        done = subprocess.run(
            [sys.executable, "-c", _EDITABLE, str(installed)],
            cwd=other,
            capture_output=True,
            text=True,
        )
        assert done.stderr == ""
        expected = [str(other / name / "__init__.py") for name in ("switch_jax", "launch", "tasks")]
        assert done.stdout.split() == expected
