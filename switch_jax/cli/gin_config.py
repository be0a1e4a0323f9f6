"""Gin's entry point: the only module that registers the config dataclasses and builds them."""

import ast
import dataclasses
import graphlib
import re
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gin import config as gin
from switch_jax import imports
from switch_jax.cli import gin_internals
from switch_jax.cli.gin_reading import (
    Reader,
    macro_suggestion,
    one_line_errors,
    packaged_files,
    packaged_including,
    packaged_macros,
    packaged_setting,
)
from switch_jax.config import (
    Config,
    DataConfig,
    DistillationConfig,
    GuardConfig,
    LossConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
)
from switch_jax.errors import FieldError, UserError
from switch_jax.fields import safe_repr, short_repr
from switch_jax.storage import on_this_machine

# By field of `Config`.
CONFIGS: dict[str, Any] = {
    "run": RunConfig,
    "model": ModelConfig,
    "data": DataConfig,
    "mesh": MeshConfig,
    "optimizer": OptimizerConfig,
    "loss": LossConfig,
    "guard": GuardConfig,
    "distillation": DistillationConfig,
}
_STANDARD_LIBRARY = sysconfig.get_path("stdlib")
_CONFIGURABLES = {
    name: gin.external_configurable(config, module="switch_jax") for name, config in CONFIGS.items()
}


def parse(
    files: Sequence[str],
    bindings: Sequence[str],
    search_paths: Sequence[str],
    unneeded: Sequence[str] = (),
) -> None:
    """Reads gin files, then bindings; later ones override earlier ones.

    Args:
      files: in the current directory, in `search_paths`, or among the packaged configs.
      bindings: 'NAME=VALUE' or 'Config.field=VALUE'; a value that gin cannot parse is a string.
      search_paths: further folders.
      unneeded: macros that may be without a value; their value is then their name.

    Raises:
      UserError: a file does not exist or is not valid gin; a name is unknown.
    """
    if not files:
        raise UserError(
            "no --gin_file: give one, for example --gin_file=runs/demo_switch.gin; packaged are "
            + ", ".join(packaged_files())
        )
    imports.add_current_directory_to_path()  # for `import my_tasks` in a gin file
    reader = Reader({config.__name__: config for config in CONFIGS.values()}, search_paths)
    if len(files) > 1:
        _check_order(reader, files)
    gin.clear_config()
    reader.origins.clear()
    reader.files.clear()
    for file in files:
        reader.read(file)
    _check_macros(reader.files)
    macros = sorted(gin_internals.macros())
    for binding in bindings:
        name, equals, value = binding.partition("=")
        name = name.strip()
        if not re.fullmatch(r"[\w./]+", name):
            raise UserError(f"--gin.{short_repr(binding)[1:-1]}: write --gin.NAME=VALUE")
        if not equals:
            raise UserError(f"--gin.{binding} has no value: write --gin.{name}=VALUE")
        if "." not in name and name not in macros:
            if name == "NUM_EXPERTS" and _describes(ModelConfig, gin_internals.bindings()):
                raise _without_experts(value, reader.files)
            raise UserError(f"no gin file knows a macro {name}{_where(name, macros)}")
        reader.set(name, value)
    for name in unneeded:
        if name in _unset():
            reader.set(name, name)
    _check_values()
    gin_internals.ORIGINS.clear()
    gin_internals.ORIGINS.update(reader.origins)
    gin_internals.FILES[:] = reader.files


def build() -> Config:
    """Builds the config from the bindings.

    Raises:
      UserError: a required value is missing, or a value is invalid.
    """
    fields: dict[str, Any] = {}
    for name, configurable in _CONFIGURABLES.items():
        config = CONFIGS[name]
        missing = [
            f"{config.__name__}.{field.name}"
            for field in dataclasses.fields(config)
            if field.default is dataclasses.MISSING
            and field.name not in gin.get_bindings(config.__name__, resolve_references=False)
        ]
        if missing:
            raise UserError(
                f"the gin files do not set {', '.join(missing)}: a run needs a model file and a "
                "run file, for example --gin_file=models/switch_base.gin "
                "--gin_file=runs/pretrain.gin"
            )
        with one_line_errors():
            try:
                fields[name] = configurable()
            except FieldError as error:
                raise _with_gin_name(config, error) from error
    return Config(**fields, imports=tuple(sorted(gin_internals.imported_modules())))


def read(
    files: Sequence[str],
    bindings: Sequence[str] = (),
    search_paths: Sequence[str] = (),
    unneeded: Sequence[str] = (),
) -> Config:
    """The config that gin files and bindings describe; what gin held before, it holds afterwards.

    Args:
      files, bindings, search_paths, unneeded: see `parse`.

    Raises:
      UserError: see `parse` and `build`.
    """
    with gin_internals.state_restored():
        parse(files, bindings, search_paths, unneeded)
        return build()


def own_files() -> list[str]:
    """The files of the config that do not come with switch_jax: gin files, and modules here.

    Of modules those that gin files import, and those that these import. A module that is in a
    package stands for the package's folder, as 'my_package/'. What is installed in an environment
    here is left out.
    """
    here, packaged = Path.cwd(), packaged_files()
    found = [file for file in on_this_machine(gin_internals.FILES) if file not in packaged]
    modules = sorted(gin_internals.imported_modules())
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


def config_text() -> str:
    """The operative config, a gin file that describes the same run."""
    return gin.operative_config_str()


def explained_config_text() -> str:
    """The same, with a comment behind each macro: what set it, and over what."""
    statements = re.split(r"\n(?=\S|\n)", config_text())
    return "\n".join(statement + _origin(statement) for statement in statements)


def _origin(statement: str) -> str:
    """The comment for a statement of a config; "" where it sets no macro."""
    macro = re.match(r"(\w+) = ", statement)
    if not macro or macro[1] not in gin_internals.ORIGINS:
        return ""
    last, *earlier = dict.fromkeys(reversed(gin_internals.ORIGINS[macro[1]]))
    return f"  # {last}{', over ' * bool(earlier)}{', '.join(earlier)}"


def _with_gin_name(config: Any, error: FieldError) -> UserError:
    """The error with the name that sets the field in gin: that of its macro, or Config.field."""
    value = gin.get_bindings(config.__name__, resolve_references=False).get(error.field)
    macros = gin_internals.references(value)
    name = macros[0] if macros else f"{config.__name__}.{error.field}"
    return UserError(f"{name} {error.problem}")


def _describes(config: Any, bindings: Mapping[str, Any]) -> bool:
    """Whether the bindings set every field of a dataclass that has no default."""
    return all(
        f"{config.__name__}.{field.name}" in bindings
        for field in dataclasses.fields(config)
        if field.default is dataclasses.MISSING
    )


def _check_order(reader: Reader, files: Sequence[str]) -> None:
    """Checks which of the files replace values of earlier ones.

    A file that describes a whole model, itself or by its includes, must come before the files that
    change the model. The file of a run may replace values of the model's file, and a packaged file
    that describes neither, such as runs/muon.gin, those of both. All other replacements are
    printed, one file on each line.

    Raises:
      UserError: a model's file comes after a file whose values it would replace.
    """
    earlier_values: dict[str, tuple[Any, str]] = {}  # value and file, by name
    models, runs = set(), set()  # files that describe a whole model or run, or both
    for file in files:
        gin.clear_config()
        reader.read(file)
        bindings = gin_internals.bindings()
        is_model, is_run = (_describes(config, bindings) for config in (ModelConfig, RunConfig))
        is_recipe = file in packaged_files() and not (is_model or is_run)
        replaced: dict[str, list[str]] = {}  # by the earlier file
        for name, value in bindings.items():
            old, earlier = earlier_values.get(name, (value, file))
            if safe_repr(old) != safe_repr(value) and not gin_internals.is_required(old):
                replaced.setdefault(earlier, []).append(
                    f"{name} = {short_repr(old)} by {short_repr(value)}"
                )
        for earlier, changes in replaced.items():
            note = f"{file} replaces what {earlier} sets: {', '.join(changes)}"
            if is_model and earlier in models:
                raise UserError(
                    f"{note}; both describe a whole model: give one of them, or write a file that "
                    "includes one and sets what differs"
                )
            if is_model:
                raise UserError(
                    f"{note}; the file with the model goes first: write --gin_file={file} "
                    f"--gin_file={earlier}"
                )
            if not is_recipe and (earlier not in models or earlier in runs):
                print(f"note: {note}", file=sys.stderr)
        if is_model:
            models.add(file)
        if is_run:
            runs.add(file)
        earlier_values |= {name: (value, file) for name, value in bindings.items()}


def _check_macros(read: Sequence[str]) -> None:
    """Raises UserError if no value and no packaged file refers to a macro.

    Files of runs set macros that only some models use, and may go beside all of them. But nobody
    sets NUM_EXPERTS for a dense model.

    Args:
      read: the files that were read.
    """
    experts = gin_internals.macros().get("NUM_EXPERTS")
    if experts is not None and "NUM_EXPERTS" not in _used():
        raise _without_experts(experts, read)
    used = _used() | packaged_macros()
    for name in sorted(gin_internals.macros()):
        if name not in used:
            raise UserError(f"nothing uses the macro {name}{macro_suggestion(name, sorted(used))}")


def _without_experts(value: Any, read: Sequence[str]) -> UserError:
    """The error where NUM_EXPERTS is set for a dense model: which file has its experts.

    Args:
      value: of NUM_EXPERTS.
      read: the files that were read, the outermost first.
    """
    sparse = "models/switch_base.gin"
    dense = next((f for f in read if f.startswith("models/") and f in packaged_files()), None)
    if dense is None:
        advice = f"the model is dense: include {sparse}, and set what differs"
    else:
        with_experts = [sparse, *packaged_including(sparse)]
        twins = [
            file
            for file in packaged_including(dense)
            if file in with_experts and file.startswith("models/")
        ]
        advice = f"{dense} is dense: "
        if twins:
            runs = [f for twin in twins for f in packaged_including(twin) if f[:5] == "runs/"]
            advice += f"take {' or '.join(twins)} in its place"
            advice += f" (included in {', '.join(runs)})" if runs else ""
        else:
            advice += (
                f"take a gin file in its place with the lines include '{sparse}' and include "
                f"'{dense}', in this order"
            )
    return UserError(f"NUM_EXPERTS = {value} is for a model with experts, and {advice}")


def _where(name: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown macro: packaged files that set it, or similar names."""
    having = packaged_setting(name)
    if not having:
        return macro_suggestion(name, known)
    return f"; files with one are {', '.join(having[:3])}{', ...' if having[3:] else ''}"


def _unset() -> list[str]:
    """Macros that a file requires and nothing sets."""
    macros = gin_internals.macros()
    return [name for name in sorted(macros) if gin_internals.is_required(macros[name])]


def _check_values() -> None:
    """Raises UserError if a macro has no value or refers to itself, or a value is a function."""
    unset = _unset()
    if unset:
        flags = " ".join(f"--gin.{name}=..." for name in unset)
        raise UserError(f"{' and '.join(unset)} not set: write {flags}")
    for name, value in gin_internals.bindings().items():
        if gin_internals.is_function(value):
            raise UserError(
                f"{name} = {value}: a value must not be a function; write {value}() for its result"
            )
    macros = gin_internals.macros()
    for name in sorted(_used() - set(macros)):
        raise UserError(
            f"no gin file sets the macro {name}{macro_suggestion(name, sorted(macros))}"
        )
    sorter = graphlib.TopologicalSorter(
        {name: gin_internals.references(value) for name, value in macros.items()}
    )
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        cycle = " = %".join(reversed(error.args[1]))
        raise UserError(f"{cycle}: the macros refer to each other; give one a value") from None


def _used() -> set[str]:
    """Names of the macros that some value refers to."""
    return set(gin_internals.references(gin_internals.bindings()))
