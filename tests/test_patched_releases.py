"""What is replaced in other packages, and which of their releases that was written for."""

import ast
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RELEASES = {
    "switch_jax/data/reading/seqio_internals.py": {"seqio": "0.0.20", "tensorflow": "2.21.0"},
    "switch_jax/checkpointing/orbax_patches.py": {"orbax-checkpoint": "0.12.8"},
    "switch_jax/gin_config/gin_internals.py": {"gin-config": "0.5.0"},
}
PACKAGES = {"seqio", "t5", "tensorflow", "tensorflow_datasets", "orbax", "gin"}
SHORT_NAMES = {"seqio", "t5", "tf", "tfds"}  # from `tensorflow_setup`


@pytest.mark.parametrize("module", RELEASES)
def test_the_installed_releases_are_those_that_the_patches_were_written_for(module):
    installed = {package: version(package) for package in RELEASES[module]}
    assert installed == RELEASES[module], (
        f"{module} replaces functions of other releases than those installed: see whether each is "
        "still needed and still does what it says, then name the installed releases in this test"
    )


def _imported(tree: ast.Module) -> set[str]:
    """The names in a module that stand for one of the packages, or for something of it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            of = getattr(node, "module", None)
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                is_set_up = of == "switch_jax.utils.tensorflow_setup" and name in SHORT_NAMES
                if is_set_up or (of or alias.name).partition(".")[0] in PACKAGES:
                    names.add(name)
    return names


def _patches(source: str) -> list[str]:
    """The attributes of the packages that a module sets, or uses though they are private."""
    tree = ast.parse(source)
    names, found = _imported(tree), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            root: ast.expr = node
            while isinstance(root, ast.Attribute):
                root = root.value
            is_private = node.attr.startswith("_") and not node.attr.startswith("__")
            if isinstance(root, ast.Name) and root.id in names:
                if is_private or isinstance(node.ctx, ast.Store):
                    found.append(ast.unparse(node))
    return found


def test_other_modules_replace_nothing_and_use_no_private_names():
    files = [
        file
        for folder in ("switch_jax", "tasks", "launch")
        for file in ROOT.glob(f"{folder}/**/*.py")
    ]
    found = {
        name: patches
        for file in files
        if (patches := _patches(file.read_text()))
        and (name := file.relative_to(ROOT).as_posix()) not in RELEASES
    }
    assert found == {}


@pytest.mark.parametrize(
    "line",
    ["tf.data.Dataset.random = f", "seqio.utils.list_files = f", "g = tfds.core._private.g"],
)
def test_a_patch_is_found(line):
    source = f"from switch_jax.utils.tensorflow_setup import seqio, tf, tfds\n{line}\n"
    assert len(_patches(source)) == 1
    assert _patches("import orbax.checkpoint as ocp\nocp.Checkpointer.save = f\n")
    assert _patches("from gin import config\nconfig._CONFIG.clear()\n")
    assert not _patches("self.random = tf.data.Dataset.random\n")
