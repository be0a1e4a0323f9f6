"""The command line: `switch_jax train | launch | plan | tasks | eval | infer | status | report`."""

import argparse
import contextlib
import importlib
import os
import signal
import sys
import traceback

import switch_jax
from switch_jax.cli import gin_flags, processes
from switch_jax.errors import UserError
from switch_jax.interrupts import Interrupts

COMMANDS = {
    "train": "pretrain a model as gin files say",
    "launch": "start a run on this machine's CPUs, on TPU VMs or on GKE; see first what happens",
    "plan": "what a training step needs and costs on a TPU slice, without a TPU",
    "tasks": "list seqio tasks, show examples of one, cache it, or train a vocabulary on it",
    "eval": "score the checkpoints of a run on tasks, by their own metrics",
    "infer": "predict or score with a trained model: a file, standard input, or a task",
    "status": "how runs are doing, from the files in their folders alone",
    "report": "write a page and a picture that compare runs",
}


def main(argv: list[str] | None = None) -> int:
    """Runs one subcommand.

    A UserError is explained in one line on standard error.

    Returns:
      The exit code; the docstrings of the subcommands and docs/reliability.md tell the meaning.
    """
    is_program = argv is None
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="switch_jax", description="Pretrain Switch Transformers, from a laptop to TPU pods."
    )
    parser.add_argument("--version", action="version", version=switch_jax.__version__)
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
    args = parser.parse_args(gin_flags.as_parsed(argv))
    # Of training a thread may be left that reads data and hangs: Python would not end.
    is_training = is_program and args.command == "train"
    if is_training:
        signal.signal(signal.SIGINT, Interrupts())
    try:
        code = args.main(args)
        sys.stdout.flush()
        if is_training:
            processes.end(code)
        return code
    except BrokenPipeError:  # as of `switch_jax tasks | head`
        if not is_program:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except UserError as error:
        print(f"switch_jax {args.command}: {error}", file=sys.stderr)
        if is_training or (is_program and processes.joined()):
            processes.end_at_once(error.exit_code)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr, flush=True)
        if is_program:  # at once: threads that still compile or read would crash as Python ends
            processes.end_at_once(130)
        return 130
    except Exception:
        if is_training or (is_program and processes.joined()):
            with contextlib.suppress(OSError):  # who reads it may be gone
                traceback.print_exc()
            processes.end_at_once(1)
        raise
