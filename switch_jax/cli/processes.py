"""Commands with several processes: the flags with which they find each other, start and exit."""

import argparse
import contextlib
import math
import os
import re
import sys
from pathlib import Path
from typing import NoReturn

from switch_jax.config import MeshConfig
from switch_jax.exit_codes import ENDED_WITH
from switch_jax.storage import choose_clients
from switch_jax.utils.errors import UserError


def add_process_flags(parser: argparse.ArgumentParser) -> None:
    """Adds --multihost, --coordinator_address, --process_count and --process_index."""
    add = parser.add_argument
    add(
        "--multihost",
        action="store_true",
        help="find the other hosts through the platform (Cloud TPU, GKE, Slurm, Open MPI)",
    )
    add("--coordinator_address", metavar="HOST:PORT", help="of process 0, without such a platform")
    add("--process_count", type=int, metavar="N", help="number of processes")
    add("--process_index", type=int, metavar="I", help="index of this process, from 0")


def connect(args: argparse.Namespace, mesh: MeshConfig, config_text: str) -> None:
    """Joins the processes that the flags name; UserError on a bad address or another config."""
    from switch_jax.runtime import multihost

    address, count, index = args.coordinator_address, args.process_count, args.process_index
    if not args.multihost and (address, count, index) == (None, None, None):
        return
    if address is not None:
        _check_address(address)
    sizes = (mesh.data or 1, mesh.expert, mesh.model)
    local_devices = math.prod(sizes) // count if count else None
    multihost.connect(address, count, index, local_cpu_devices=local_devices)
    multihost.check_same_config(config_text)


def _check_address(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise UserError(
            f"--coordinator_address={address}: write HOST:PORT, with a port from 1 to 65535"
        )


def is_distributed() -> bool:
    """Whether this process has joined others."""
    jax = sys.modules.get("jax")  # not imported: nothing has used it
    return jax is not None and jax.distributed.is_initialized()


def exit_together(exit_code: int) -> NoReturn:
    """Exits when all processes call this, without waiting for threads that block."""
    if is_distributed():
        from switch_jax.runtime import multihost

        multihost.disconnect()
    exit_now(exit_code)


def exit_now(exit_code: int) -> NoReturn:
    """Exits without Python's clean-up, in which JAX would wait for the other processes."""
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None: closed
        with contextlib.suppress(OSError):  # nobody may read it any more
            stream.flush()
    if ended_with := os.environ.get(ENDED_WITH):
        with contextlib.suppress(OSError):
            Path(f"{ended_with}{exit_code}").touch()
    os._exit(exit_code)


def enable_compilation_cache() -> None:
    """Keeps programs that took long to compile on disk, for the next start."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        folder = Path(cache).expanduser() / "switch_jax" / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(folder))
    choose_clients()  # the folder of that variable may be in a bucket
