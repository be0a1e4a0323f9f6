"""The command line: `switch_jax train | launch | plan | tasks | eval | infer | status | report`."""

import argparse
import importlib
import re
import signal
import sys
import traceback

import switch_jax
from switch_jax.cli import gin_flags, multihost, streams
from switch_jax.errors import UserError, storage_error
from switch_jax.interrupts import InterruptHandler

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
    output = streams.open_all() if is_program else None
    name, is_training = "switch_jax", False

    def ended(code: int) -> int:
        # Python would not end: training may leave a thread that hangs while it reads data, and
        # processes that have joined would wait for each other.
        if is_training or (is_program and multihost.joined()):
            multihost.end_at_once(code)
        return code

    try:
        try:
            args = _parsed(gin_flags.as_parsed(sys.argv[1:] if argv is None else argv))
        finally:  # --help ends here
            sys.stdout.flush()
        name = f"switch_jax {args.command}"
        if output and args.command == "train":
            is_training = True
            signal.signal(signal.SIGINT, InterruptHandler())
            if not args.dry_run:
                output.on_failure = _train_without_output
        code = args.main(args)
        sys.stdout.flush()
        if is_training:
            multihost.end(code)
        return code
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return ended(error.exit_code)
    except SystemExit:
        if output and output.failure:  # argparse passes over what it cannot print
            return _explain_failed_output(name, output.failure)
        raise
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr, flush=True)
        if is_program:  # at once: threads that still compile or read would crash as Python ends
            multihost.end_at_once(130)
        return 130
    except Exception as error:
        if output and error is output.failure:
            return ended(_explain_failed_output(name, output.failure))
        if is_training or (is_program and multihost.joined()):
            traceback.print_exc()
        ended(1)
        raise


def _parsed(argv: list[str]) -> argparse.Namespace:
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
    for argument in argv:
        if re.fullmatch(r"--\w+=--", argument):  # Python 3.11's argparse makes a list [] of it
            parser.error(f"{argument}: write a value after the =")
    return parser.parse_args(argv)


def _explain_failed_output(name: str, failure: OSError) -> int:
    """Says why standard output could not be written; returns the exit code."""
    if isinstance(failure, BrokenPipeError):  # as of `switch_jax tasks | head`: nothing to say
        return 128 + signal.SIGPIPE
    error = storage_error(f"standard output cannot be written: {failure.strerror}", failure)
    print(f"{name}: {error}", file=sys.stderr)
    return error.exit_code


def _train_without_output(failure: OSError) -> None:
    print(
        f"switch_jax train: standard output cannot be written ({failure.strerror}); training goes "
        "on, and MODEL_DIR has its records",
        file=sys.stderr,
        flush=True,
    )
