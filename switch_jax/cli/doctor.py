"""Check whether this machine computes the right thing.

    switch_jax doctor
    switch_jax doctor --gin_file=models/switch_base.gin --gin_file=runs/pretrain.gin \\
        --gin.MODEL_DIR=gs://my-bucket/run --gin.MESH_EXPERT=8

With the gin files of a run it takes that run's mesh, and writes a checkpoint beside its MODEL_DIR;
without any, all devices of each slice exchange tokens, or two virtual ones of the CPU. Each check
is a line: passed, failed or skipped, with its numbers. One that fails does not stop the others. On
several hosts, run the command on each of them with --multihost, or let `switch_jax launch --doctor`
do so.

Exit codes: 0; 1: a check has failed; 2: a mistake in the flags or the config.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from switch_jax import exit_codes
from switch_jax.cli import gin_flags, processes
from switch_jax.storage import storage_path
from switch_jax.utils.errors import UserError

if TYPE_CHECKING:  # it loads JAX
    from switch_jax.config import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    gin_flags.add_gin_flags(parser)
    processes.add_process_flags(parser)


def main(args: argparse.Namespace) -> int:
    config = _config(args)
    model_dir = storage_path(config.run.model_dir, "MODEL_DIR")

    import jax

    from switch_jax.doctor.all_checks import all_checks
    from switch_jax.doctor.checks import FAILED, SKIPPED, run_checks
    from switch_jax.partitioning.mesh import make_mesh
    from switch_jax.runtime.multihost import is_first

    mesh, verdicts = make_mesh(config.mesh), []
    if is_first():
        shape = " x ".join(map(str, mesh.devices.shape))
        print(f"mesh data x expert x model = {shape} of {mesh.devices.flat[0].device_kind}")
    with jax.set_mesh(mesh):
        for finding in run_checks(all_checks(mesh, model_dir)):
            verdicts.append(finding.verdict)
            if is_first():
                print(finding, flush=True)
    failed, done = verdicts.count(FAILED), len(verdicts) - verdicts.count(SKIPPED)
    if is_first():
        print(f"{failed} of {done} checks failed" if failed else f"{done} checks passed")
    return exit_codes.FAILED if failed else exit_codes.DONE


def _config(args: argparse.Namespace) -> Config:
    """Reads the run's config, by default the demo's on all devices; joins the other processes."""
    from switch_jax.config import MeshConfig
    from switch_jax.runtime.host_memory import only_cpus

    if not args.gin_file:
        by_default = ["MODEL_DIR=runs/doctor"]
        if not only_cpus():
            processes.connect(args, MeshConfig(), "")
            by_default += _mesh_of_all_devices()
        args.gin_file = ["models/switch_demo.gin", "runs/demo.gin"]
        args.gin_bindings = [*by_default, *args.gin_bindings]
    found = gin_flags.read(args, ("INITIAL_CHECKPOINT_PATH", "MIXTURE_OR_TASK_NAME"))
    if not processes.is_distributed():
        processes.connect(args, found.config.mesh, found.text)
    return found.config


def _mesh_of_all_devices() -> list[str]:
    """Returns bindings of a mesh in which tokens go to all devices of a slice."""
    import jax

    from switch_jax.hardware.tpus import num_slices

    devices = jax.devices()
    if devices[0].platform == "cpu":
        raise UserError(
            "this machine has an accelerator, and JAX finds none: see docs/install.md, or set "
            "JAX_PLATFORMS=cpu to look at the CPUs"
        )
    slices = num_slices(devices)
    return [f"MESH_DATA={slices}", f"MESH_EXPERT={len(devices) // slices}"]
