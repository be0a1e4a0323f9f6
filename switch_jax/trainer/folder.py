"""What a run's folder holds besides checkpoints and metrics."""

import json
import uuid
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from switch_jax.checkpointing.parameters import saved_steps
from switch_jax.config import Config
from switch_jax.data.batch import Batch
from switch_jax.data.configured_tasks import identities
from switch_jax.model.flops import forward_flops, parameter_count
from switch_jax.paths import local_path, write_whole, writing


def make_folder(name: str) -> Path:
    """The folder, made where it is not.

    Raises:
      UserError: it cannot be written, or is in a bucket that is not mounted.
    """
    folder = local_path(name, "MODEL_DIR").absolute()
    with writing(f"MODEL_DIR {name!r}"):
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{uuid.uuid4().hex}"  # all processes do so at once
        probe.touch()
        probe.unlink()
    return folder


def write_description(
    model_dir: Path,
    config: Config,
    mesh: Mesh,
    config_text: str,
    start: Path | None,
) -> None:
    """Facts of the run as `run.json`, and its config as `config.gin`.

    Args:
      model_dir: the run's folder.
      config, mesh: what is described.
      config_text: the config as gin text; empty: none is written.
      start: the checkpoint that a new run starts from; of one that goes on from a checkpoint of its
        own, `run.json` keeps what it says.

    Raises:
      UserError: they cannot be written.
    """
    run, model, tokens = config.run, config.model, sum(config.data.lengths)
    description = {
        "name": model_dir.name,
        "parameters": parameter_count(model),
        "num_experts": model.num_experts,
        "flops_per_token": forward_flops(model, *config.data.lengths) / tokens,
        "mesh": dict(mesh.shape),
        "device": f"{jax.devices()[0].device_kind} x {mesh.size}",
        "train_steps": run.train_steps,
        "batch_tokens": run.batch_size * tokens,
        "seed": run.seed,
        "vocabulary": identities(config.data),
        "initial_checkpoint": _initial_checkpoint(model_dir, start),
    }
    with writing(f"MODEL_DIR {run.model_dir!r}"):
        write_whole(model_dir / "run.json", json.dumps(description, indent=2) + "\n")
        if config_text:
            write_whole(model_dir / "config.gin", config_text)


def _initial_checkpoint(model_dir: Path, start: Path | None) -> str | None:
    if not saved_steps(model_dir):
        return str(start) if start else None
    try:
        described = json.loads((model_dir / "run.json").read_text())
    except (OSError, ValueError, RecursionError):  # removed, or changed by hand
        described = None
    if isinstance(described, dict):
        checkpoint = described.get("initial_checkpoint")
        if isinstance(checkpoint, str | None):
            return checkpoint
    print(
        f"{model_dir / 'run.json'} is damaged, and is written anew: which "
        "checkpoint the run began with is not known any more",
        flush=True,
    )
    return None


def write_bad_batch(model_dir: Path, number: int, batch: Batch) -> Path:
    """Writes the rows of a batch that this process has, for inspection with `numpy.load`.

    Raises:
      UserError: it cannot be written.
    """
    path = model_dir / "bad_batches" / f"batch_{number}_process_{jax.process_index()}.npz"
    here = batch["encoder_segments"].any(1)
    rows: dict[str, Any] = {name: array[here] for name, array in batch.items()}
    with writing(path):
        path.parent.mkdir(exist_ok=True)
        np.savez(path, rows=np.flatnonzero(here), **rows)
    return path
