"""The command line: `switch_jax COMMAND`, with a module for each of COMMANDS."""

import argparse
import contextlib
import errno
import importlib
import io
import os
import re
import signal
import sys
import traceback
from typing import Any, NoReturn, TextIO

from switch_jax import exit_codes
from switch_jax.cli import gin_flags, processes
from switch_jax.utils.errors import UserError, did_you_mean
from switch_jax.utils.interrupts import InterruptHandler
from switch_jax.version import __version__

COMMANDS = {
    "train": "train a model that gin files describe",
    "launch": "start a run on this machine, on TPU VMs, GKE or Slurm; shows the commands first",
    "plan": "memory and time of a training step on a TPU slice, without one",
    "doctor": "check whether this machine computes the right thing",
    "tasks": "list seqio tasks, show examples of one, cache it, or train a vocabulary on it",
    "eval": "evaluate the checkpoints of a run on tasks, with their own metrics",
    "infer": "predict or score a file, standard input or a task with a trained model",
    "convert": "convert checkpoints of Hugging Face, both ways, and of T5X, or describe one",
    "status": "show the state of runs from the files in their folders",
    "report": "write a page that compares runs",
}


# Exit codes where standard output cannot be written: nobody reads it any more, as in
# `switch_jax tasks | head`, or the disk is full.
_OUTPUT_IS_LOST = {errno.EPIPE: exit_codes.OUTPUT_LOST, errno.ENOSPC: exit_codes.MISTAKE}


def main(argv: list[str] | None = None) -> int:
    """Runs a subcommand; returns its exit code (docs/exit_codes.md). UserErrors are printed."""
    is_program = argv is None
    name, is_training = "switch_jax", False

    def exit_or_return(code: int) -> int:
        # Python would not exit: training may leave a thread that blocks in a read, and processes
        # that have joined would wait for each other.
        if is_training or (is_program and processes.is_distributed()):
            processes.exit_now(code)
        return code

    try:
        arguments = gin_flags.expand_bindings(sys.argv[1:] if argv is None else argv)
        for argument in arguments:
            if re.fullmatch(r"--\w+=--", argument):  # Python 3.11's argparse makes a list [] of it
                raise UserError(f"{argument}: write a value after the =")
        try:
            args = make_parser().parse_args(arguments)
        finally:  # --help exits here
            _flush_output()
        name = f"switch_jax {args.command}"
        if is_program and args.command == "train":
            is_training = True
            signal.signal(signal.SIGINT, InterruptHandler())
            if not args.dry_run:
                sys.stdout, sys.stderr = _unfailing(sys.stdout), _unfailing(sys.stderr)
        code = args.main(args)
        _flush_output()
        if is_training:
            processes.exit_together(code)
        return code
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return exit_or_return(error.exit_code)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr, flush=True)
        if is_program:  # threads that still compile or read would crash while Python exits
            processes.exit_now(exit_codes.INTERRUPTED)
        return exit_codes.INTERRUPTED
    except Exception as error:
        if is_program and isinstance(error, OSError) and error.errno in _OUTPUT_IS_LOST:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes standard output again
            return exit_or_return(_OUTPUT_IS_LOST[error.errno])
        if is_training or (is_program and processes.is_distributed()):
            traceback.print_exc()
        exit_or_return(exit_codes.FAILED)
        raise


class _Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviated flags, and reports a mistake in one line without usage."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses as argparse does; exits where an argument is unknown, and names similar flags."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            advice = self._advice(unknown[0].partition("=")[0])
            self.error(f"unrecognized arguments: {' '.join(unknown)}{advice}")
        return found, unknown

    def _advice(self, argument: str) -> str:
        flags = list(self._option_string_actions)
        takes_gin = "--gin_bindings" in flags
        if takes_gin and not argument.startswith("-"):  # the shell has split a value
            return " (write --gin_file=FILE, or --gin.NAME=VALUE, in quotes if it has spaces)"
        _, dot, name = argument.partition(".")
        return did_you_mean(argument, [*flags, *[f"--gin.{name}"] * bool(dot and takes_gin)])

    def error(self, message: str) -> NoReturn:
        self.exit(exit_codes.MISTAKE, f"{self.prog}: {message}\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; the reference of the docs is made from it, too."""
    parser = _Parser(
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


class _UnfailingOutput(io.FileIO):
    """A file that drops what cannot be written, as to a full disk or a pipe without a reader."""

    def write(self, data: Any) -> int:
        with contextlib.suppress(OSError):
            return super().write(data) or len(data)
        return len(data)


def _unfailing(stream: TextIO | None) -> TextIO:
    """Wraps an output stream so that a failing print never ends a training run."""
    if stream is None:  # closed, as by >&-
        return open(os.devnull, "w")
    output = io.BufferedWriter(_UnfailingOutput(stream.fileno(), "w", closefd=False))
    return io.TextIOWrapper(output, stream.encoding, stream.errors, line_buffering=True)


def _flush_output() -> None:
    if sys.stdout is not None:  # closed, as by >&-
        sys.stdout.flush()
