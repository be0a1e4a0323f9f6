"""The command line.

`switch_jax train | launch | plan | doctor | tasks | eval | infer | convert | status | report |
completion`
"""

import argparse
import difflib
import importlib
import re
import signal
import sys
import traceback

from switch_jax.cli import gin_flags, multihost, standard_streams
from switch_jax.errors import UserError, storage_error
from switch_jax.interrupts import InterruptHandler
from switch_jax.version import __version__

COMMANDS = {
    "train": "train a model that gin files describe",
    "launch": "start a run on this machine, on TPU VMs, GKE or Slurm; shows the commands first",
    "plan": "memory and time of a training step on TPUs, GPUs or CPUs, without them",
    "doctor": "check whether this machine computes the right thing, and how fast",
    "tasks": "list seqio tasks, show examples of one, cache it, or train a vocabulary on it",
    "eval": "evaluate the checkpoints of a run on tasks, with their own metrics",
    "infer": "predict or score a file, standard input or a task with a trained model",
    "convert": "convert checkpoints of Hugging Face, both ways, and of T5X, or describe one",
    "status": "show the state of runs from the files in their folders",
    "report": "write a page and a picture that compare runs",
    "completion": "print a script by which a shell completes commands, flags and files",
}


def main(argv: list[str] | None = None) -> int:
    """Runs one subcommand.

    The message of a UserError is printed to standard error, as one line.

    Returns:
      The exit code; the help of the subcommands and docs/exit_codes.md explain it.
    """
    is_program = argv is None
    output = standard_streams.replace_standard_streams() if is_program else None
    name, is_training = "switch_jax", False

    def exit_or_return(code: int) -> int:
        # Python would not exit: training may leave a thread that blocks in a read, and processes
        # that have joined would wait for each other.
        if is_training or (is_program and multihost.joined()):
            multihost.exit_now(code)
        return code

    try:
        try:
            args = _parsed(gin_flags.expand_bindings(sys.argv[1:] if argv is None else argv))
        finally:  # --help exits here
            sys.stdout.flush()
        name = f"switch_jax {args.command}"
        if output and args.command == "train":
            is_training = True
            signal.signal(signal.SIGINT, InterruptHandler())
            if not args.dry_run:
                output.on_failure = _report_lost_output
        code = args.main(args)
        sys.stdout.flush()
        if is_training:
            multihost.exit_together(code)
        return code
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return exit_or_return(error.exit_code)
    except SystemExit:
        if output and output.failure:  # argparse ignores that it could not print
            return _explain_failed_output(name, output.failure)
        raise
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr, flush=True)
        if is_program:  # threads that still compile or read would crash while Python exits
            multihost.exit_now(130)
        return 130
    except Exception as error:
        if output and error is output.failure:
            return exit_or_return(_explain_failed_output(name, output.failure))
        if is_training or (is_program and multihost.joined()):
            traceback.print_exc()
        exit_or_return(1)
        raise


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; the reference of the docs is made from it, too."""
    parser = argparse.ArgumentParser(
        prog="switch_jax", description="Pretrain Switch Transformers, from a laptop to TPU pods."
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name, summary in COMMANDS.items():
        module = importlib.import_module(f"switch_jax.cli.{name}")
        subparser = subparsers.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)
        subparser.set_defaults(main=module.main)
    return parser


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the commands; argparse has no public way to list what a parser takes."""
    (commands,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return commands.choices


def _parsed(argv: list[str]) -> argparse.Namespace:
    parser = make_parser()
    for argument in argv:
        if re.fullmatch(r"--\w+=--", argument):  # Python 3.11's argparse makes a list [] of it
            parser.error(f"{argument}: write a value after the =")
    command = next((argument for argument in argv if not argument.startswith("-")), None)
    if command in COMMANDS:  # first: for argparse the flag that was meant is missing
        _check_spelling(parser, commands_of(parser)[command], argv)
    elif near := difflib.get_close_matches(command or "", COMMANDS, n=1):
        parser.error(f"there is no command {command}; did you mean {near[0]}?")
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        hint = gin_flags.meant_as_macros(unknown) if hasattr(args, "gin_bindings") else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    return args


def _check_spelling(
    parser: argparse.ArgumentParser, command: argparse.ArgumentParser, argv: list[str]
) -> None:
    """Exits with an error where a flag is unknown and close to one that the command has."""
    known = [name[2:] for name in command._option_string_actions if name.startswith("--")]
    for argument in argv:
        flag = argument.partition("=")[0]
        # argparse takes the beginning of a flag, too.
        if not flag.startswith("--") or any(name.startswith(flag[2:]) for name in known):
            continue
        if "gin_bindings" in known and gin_flags.meant_as_macros([argument]):
            continue
        near = difflib.get_close_matches(flag[2:].replace("-", "_"), known, n=1, cutoff=0.7)
        if near:
            parser.error(f"unrecognized arguments: {argument}; did you mean --{near[0]}?")


def _explain_failed_output(name: str, failure: OSError) -> int:
    """Prints why standard output could not be written; returns the exit code."""
    if isinstance(
        failure, BrokenPipeError
    ):  # as in `switch_jax tasks | head`: not an error to report
        return 128 + signal.SIGPIPE
    error = storage_error(f"standard output cannot be written: {failure.strerror}", failure)
    print(f"{name}: {error}", file=sys.stderr)
    return error.exit_code


def _report_lost_output(failure: OSError) -> None:
    print(
        f"switch_jax train: standard output cannot be written ({failure.strerror}); training "
        "continues, and MODEL_DIR has its records",
        file=sys.stderr,
        flush=True,
    )
