"""Print a script by which a shell completes commands, flags and files.

    source <(switch_jax completion bash)                  # in ~/.bashrc
    eval "$(switch_jax completion zsh)"                   # in ~/.zshrc, after compinit
    switch_jax completion fish | source                   # in ~/.config/fish/config.fish

It completes what --help lists, after --gin_file the gin files of this folder and those that come
with switch_jax, and after --gin. their macros.
"""

import argparse
from collections.abc import Sequence

SHELLS = ("bash", "zsh", "fish")

# Metavars of flags and arguments that are paths.
_FILES = ("FILE", "TARGET", "SOURCE")
_FOLDERS = ("DIR", "DIR,DIR", "MODEL_DIR", "RUN")

# shtab's own leaves --FLAG= in front of the path.
_FISH_PATHS = (
    "(__fish_complete_path (string replace --regex '^--[a-z_]+=' '' -- (commandline -ct)))"
)

# bash splits --gin_file=FILE into three words, of which shtab's function expects the outer two. The
# macros, with the = that follows each, come when the word begins with --gin.
_BASH = """
_switch_jax() {
  local i words=() current=$COMP_CWORD
  for i in "${!COMP_WORDS[@]}"; do
    if [[ ${COMP_WORDS[i]} != "=" ]]; then
      words+=("${COMP_WORDS[i]}")
    elif (( i == COMP_CWORD )); then
      words+=("")
    elif (( i < COMP_CWORD )); then
      (( current -= 1 ))
    fi
  done
  local COMP_WORDS=("${words[@]}") COMP_CWORD=$current
  _shtab_switch_jax
  local word found=()
  for word in "${COMPREPLY[@]}"; do
    if [[ $word != --gin.* ]]; then
      found+=("$word")
    elif [[ ${COMP_WORDS[COMP_CWORD]} == --gin.* ]]; then
      found+=("$word=")
    elif [[ " ${found[*]} " != *" --gin. "* ]]; then
      found+=("--gin.")
    fi
  done
  COMPREPLY=("${found[@]}")
  if [[ ${#found[@]} == 1 && ${found[0]} == --gin.* ]]; then
    compopt -o nospace 2> /dev/null
  fi
}
complete -o bashdefault -o default -F _switch_jax switch_jax"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The shell."""
    parser.add_argument("shell", choices=SHELLS, help="the shell to write a script for")


def main(args: argparse.Namespace) -> int:
    """Prints the script."""
    print(script(args.shell))
    return 0


def script(shell: str) -> str:
    """The completion script of all commands for one of SHELLS."""
    import shtab

    from switch_jax.cli import commands_of, make_parser
    from switch_jax.gin_config.packaged import packaged_files, packaged_macros

    parser = make_parser()
    with_value: set[str] = set()
    for command in commands_of(parser).values():
        if "--gin_bindings" in command._option_string_actions:
            for macro in sorted(packaged_macros()):
                command.add_argument(f"--gin.{macro}", metavar="VALUE", help="sets this macro")
        for action in command._actions:
            if action.dest == "gin_file":
                action.complete = _gin_files(packaged_files())  # type: ignore[attr-defined]
            elif action.metavar in _FILES:
                action.complete = {**shtab.FILE, "fish": _FISH_PATHS}  # type: ignore[attr-defined]
            elif action.metavar in _FOLDERS:
                folders = {**shtab.DIRECTORY, "fish": _FISH_PATHS}
                action.complete = folders  # type: ignore[attr-defined]
            if action.nargs != 0:
                with_value.update(action.option_strings)
    text = shtab.complete(parser, shell)
    if shell == "bash":
        return text + _BASH
    if shell == "zsh":  # there --FLAG=[...] stands for --FLAG VALUE and --FLAG=VALUE
        for flag in with_value:
            text = text.replace(f"{flag}[", f"{flag}=[")
    return text


def _gin_files(packaged: Sequence[str]) -> dict[str, str | dict[str, str]]:
    """How each shell completes a gin file: one of this folder, or a packaged one."""
    names, function = " ".join(packaged), "_switch_jax_gin_files"
    return {
        "bash": function,
        "zsh": function,
        "fish": f"{_FISH_PATHS} {names}",
        "preamble": {
            "bash": f'{function}() {{\n  compgen -f -X \'!*.gin\' -- "$1"\n  compgen -d -- "$1"\n'
            f"  compgen -W '{names}' -- \"$1\"\n}}",
            "zsh": f"{function}() {{\n  _files -g '*.gin'\n  compadd -- {names}\n}}",
        },
    }
