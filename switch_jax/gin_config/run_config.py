"""The entry point, and the only module that registers the config dataclasses with gin."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gin import config as gin
from switch_jax.config import PARTS, Config
from switch_jax.gin_config import gin_internals
from switch_jax.gin_config.checks import check_macros, check_order, check_values, unset_macros
from switch_jax.gin_config.packaged import packaged_files, packaged_macros
from switch_jax.gin_config.parent import take_model_of_parent
from switch_jax.gin_config.reader import Reader, one_line_errors
from switch_jax.utils import imports
from switch_jax.utils.errors import FieldError, UserError, did_you_mean
from switch_jax.utils.fields import short_repr

_CONFIGURABLES = {
    name: gin.external_configurable(config, module="switch_jax") for name, config in PARTS.items()
}


@dataclasses.dataclass(frozen=True)
class GinConfig:
    """A config, and the gin files and bindings that it was read from.

    Attributes:
      text: gin's operative config, a gin file that describes the same run.
      note: what this run inherits from the one that it starts from, '' for nothing. The text begins
        with it.
      origins, files: see `Reader`.
    """

    config: Config
    text: str
    note: str
    origins: Mapping[str, Sequence[str]]
    files: Sequence[str]

    def explained_text(self) -> str:
        """The text, with a comment behind each setting in `origins`: what set it, and over what."""
        return "\n".join(text for text, _ in self._explained_statements())

    def user_settings(self) -> list[str]:
        """The statements of the text that flags and the user's files set, with these comments.

        Where no packaged file is read, the files are a whole config, and only flags count.
        """
        files = set(self.files) - set(packaged_files())
        if len(files) == len(self.files):
            files = set()
        statements = self._explained_statements()
        return [text for text, last in statements if last in files or last.startswith("--gin.")]

    def _explained_statements(self) -> Iterator[tuple[str, str]]:
        """Yields each statement of the text with its comment, and what set it last, if known."""
        for text in re.split(r"\n(?=\S|\n)", self.text):
            name = re.match(r"[\w.]+(?= = )", text)
            setters = self.origins.get(name[0], ()) if name else ()
            last, *earlier = list(dict.fromkeys(reversed(setters))) or [""]
            over = f", over {', '.join(earlier)}" if earlier else ""
            yield f"{text}  # {last}{over}" if last else text, last


def read(
    files: Sequence[str],
    bindings: Sequence[str] = (),
    search_paths: Sequence[str] = (),
    unneeded: Sequence[str] = (),
    *,
    keep: bool = False,
) -> GinConfig:
    """Reads gin files, then bindings; later ones override earlier ones.

    UserError where a file does not exist or is not valid gin, a name is unknown, or a value is
    missing or invalid.

    Args:
      files: in the current directory, in `search_paths`, or among the packaged configs.
      bindings: 'NAME=VALUE' or 'Config.field=VALUE'; a value that gin cannot parse is a string.
      unneeded: macros that may be without a value; their value is then their name.
      keep: whether gin keeps the values, which may set configurables in modules of the user;
        otherwise it holds afterwards what it held before.
    """
    with contextlib.nullcontext() if keep else gin_internals.state_restored():
        reader, note = _parsed(files, bindings, search_paths, unneeded)
        config, text = _built(), gin.operative_config_str()
        text = f"# {note}\n{text}" if note else text
        return GinConfig(config, text, note, reader.origins, reader.files)


def _parsed(
    files: Sequence[str],
    bindings: Sequence[str],
    search_paths: Sequence[str],
    unneeded: Sequence[str],
) -> tuple[Reader, str]:
    """Sets in gin the values of files and bindings; returns the reader and the parent's note."""
    if not files:
        raise UserError(
            "no --gin_file: give one of your own, or of those that come with switch_jax: "
            + ", ".join(packaged_files())
        )
    imports.add_current_directory_to_path()  # for `import my_tasks` in a gin file
    gin.clear_config()
    reader = Reader({config.__name__: config for config in PARTS.values()}, search_paths)
    check_order([(file, reader.read(file)) for file in files])
    note = take_model_of_parent(reader, bindings)
    check_macros()
    macros = sorted(gin_internals.macros())
    for binding in bindings:
        name, equals, value = binding.partition("=")
        name = name.strip()
        if not re.fullmatch(r"[\w./]+", name):
            raise UserError(f"--gin.{short_repr(binding)[1:-1]}: write --gin.NAME=VALUE")
        if not equals:
            raise UserError(f"--gin.{binding}: write --gin.{name}=VALUE")
        if "." not in name and name not in macros:
            similar = "" if name in packaged_macros() else did_you_mean(name, macros)
            raise UserError(f"no gin file knows a macro {name}{similar}")
        reader.set(name, value)
    unset = unset_macros()
    for name in unneeded:
        if name in unset:
            reader.set(name, name)
    check_values()
    return reader, note


def _built() -> Config:
    """The config from what gin holds; UserError where a value is missing or invalid."""
    fields: dict[str, Any] = {}
    for name, configurable in _CONFIGURABLES.items():
        config = PARTS[name]
        missing = [
            f"{config.__name__}.{field.name}"
            for field in dataclasses.fields(config)
            if field.default is dataclasses.MISSING
            and field.name not in gin.get_bindings(config.__name__, resolve_references=False)
        ]
        if missing:
            raise UserError(
                f"the gin files do not set {', '.join(missing)}: a run needs a model's file and a "
                "run's"
            )
        with one_line_errors():
            try:
                fields[name] = configurable()
            except FieldError as error:
                raise _with_gin_name(config, error) from error
    return Config(**fields, imports=tuple(sorted(gin_internals.imported_modules())))


def _with_gin_name(config: Any, error: FieldError) -> UserError:
    """Returns the error with the name that sets the field in gin: its macro, or Config.field."""
    value = gin.get_bindings(config.__name__, resolve_references=False).get(error.field)
    macros = gin_internals.references(value)
    name = macros[0] if macros else f"{config.__name__}.{error.field}"
    return UserError(f"{name} {error.problem}")
