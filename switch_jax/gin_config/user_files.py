"""The gin files and modules of a config that the user has written."""

import ast
import sys
import sysconfig
from pathlib import Path

from switch_jax.gin_config.packaged import packaged_files
from switch_jax.gin_config.run_config import GinConfig
from switch_jax.storage import local_paths

_STANDARD_LIBRARY = sysconfig.get_path("stdlib")


def user_files(read: GinConfig) -> list[str]:
    """Paths of gin files, and of modules of the current directory; the modules are imported.

    Of modules those that gin files import, and those that these import. A module that is in a
    package stands for the package's folder, as 'my_package/'. What is installed in an environment
    here is left out.
    """
    here = Path.cwd()
    found = [file for file in local_paths(read.files) if file not in packaged_files()]
    modules = list(read.config.imports)
    for module in modules:  # grows meanwhile
        file = Path(getattr(sys.modules.get(module), "__file__", None) or "/")
        installed = "site-packages" in file.parts or file.is_relative_to(_STANDARD_LIBRARY)
        if not file.is_relative_to(here) or installed or module.startswith("switch_jax."):
            continue
        modules += [name for name in _imports_of(file) if name not in modules]
        depth = module.count(".") + (file.name == "__init__.py")
        path = file.parents[depth - 1] if depth else file
        found.append(f"{path.relative_to(here)}{'/' * bool(depth)}")
    return list(dict.fromkeys(found))


def _imports_of(file: Path) -> list[str]:
    """Names of the modules that a loaded module's file imports, but for relative imports."""
    names = []
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in names if name in sys.modules]
