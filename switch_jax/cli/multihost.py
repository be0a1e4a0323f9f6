"""The flags by which processes find each other, and what each process of a command begins with."""

import argparse
import contextlib
import math
import os
import sys
from pathlib import Path
from typing import Any, NoReturn


def add_process_flags(parser: argparse.ArgumentParser) -> None:
    """--multihost, or --coordinator_address, --process_count and --process_index."""
    parser.add_argument(
        "--multihost",
        action="store_true",
        help="find the other hosts as the platform says (Cloud TPU, GKE, Slurm, Open MPI)",
    )
    parser.add_argument(
        "--coordinator_address", metavar="HOST:PORT", help="of process 0, where no platform knows"
    )
    parser.add_argument("--process_count", type=int, metavar="N", help="processes in all")
    parser.add_argument("--process_index", type=int, metavar="I", help="of this one, from 0")


def connect(args: argparse.Namespace, mesh: Any) -> None:
    """Joins the other processes where the flags say that there are some.

    Raises:
      UserError: see `processes.connect` and `processes.check_same_config`.
    """
    from switch_jax.runtime import processes

    address, count, index = args.coordinator_address, args.process_count, args.process_index
    if not args.multihost and (address, count, index) == (None, None, None):
        return
    sizes = (mesh.data or 1, mesh.expert, mesh.model)
    share = math.prod(sizes) // count if count else None
    processes.connect(address, count, index, local_cpu_devices=share)

    from switch_jax.cli import gin_config

    processes.check_same_config(gin_config.config_text())


def joined() -> bool:
    """Whether this process has joined others."""
    jax = sys.modules.get("jax")  # what no command has loaded, none has used
    return jax is not None and jax.distributed.is_initialized()


def end(exit_code: int) -> NoReturn:
    """Ends this process when the others have come as far: threads that hang do not hold it up."""
    if joined():
        from switch_jax.runtime import processes

        processes.disconnect()
    end_at_once(exit_code)


def end_at_once(exit_code: int) -> NoReturn:
    """Ends this process; as Python ends, JAX would wait for the others, and they wait for it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # who reads it may be gone
            stream.flush()
    os._exit(exit_code)


def keep_compiled() -> None:
    """Programs that took long to compile are kept for the next start."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        folder = Path(cache).expanduser() / "switch_jax" / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(folder))
