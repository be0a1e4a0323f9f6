"""Makes a run's folder, and writes the files that describe the run and its bad batches."""

import io
import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
from etils import epath

from switch_jax.config import Config
from switch_jax.run_folder.layout import RunFolder
from switch_jax.run_folder.readers import read_run_facts
from switch_jax.storage import atomic_write, check_writable, exists, explain_write_errors
from switch_jax.utils.errors import UserError


def create_run_folder(model_dir: str) -> RunFolder:
    """Makes the folder MODEL_DIR if it is not there; UserError if it cannot be written."""
    folder, what = _writable_folder(model_dir)
    with explain_write_errors(what):
        folder.path.mkdir(parents=True, exist_ok=True)
    check_writable(folder.path, what)
    return folder


def check_run_folder(model_dir: str) -> None:
    """Raises UserError if MODEL_DIR cannot be made or written; see `check_writable`."""
    folder, what = _writable_folder(model_dir)
    check_writable(folder.path, what)


def _writable_folder(model_dir: str) -> tuple[RunFolder, str]:
    """Returns the folder and how errors name it; UserError for S3: Orbax does not write there."""
    what = f"MODEL_DIR {model_dir!r}"
    if model_dir.startswith("s3://"):
        raise UserError(
            f"{what}: a run writes to a disk or to gs://BUCKET/...; at s3:// are data, "
            "vocabularies, and inputs and outputs of `infer`"
        )
    return RunFolder.at(model_dir), what


def write_description(
    folder: RunFolder,
    facts: Mapping[str, Any],
    start: PurePath | None,
    config: Config,
    config_text: str,
) -> None:
    """Writes `run.json`, `config.gin` and `config.json`; UserError if they cannot be written.

    `facts` are the fields of run.json except `name` and `initial_checkpoint`. The latter is
    `start`, unless the run has saved a checkpoint and so keeps the field of its run.json, or has
    none if that is damaged. Raises TransientError if run.json cannot be read.
    """
    description = {"name": folder.path.name, **facts}
    damaged = None
    if not folder.checkpoint_steps():
        description["initial_checkpoint"] = str(start) if start else None
    else:
        earlier, damaged = read_run_facts(folder)
        if "initial_checkpoint" in earlier:
            description["initial_checkpoint"] = earlier["initial_checkpoint"]
    with explain_write_errors(f"MODEL_DIR {str(folder)!r}"):
        if damaged:
            _set_aside(folder, damaged)
        atomic_write(folder.description, json.dumps(description, indent=2) + "\n")
        atomic_write(folder.config, config_text)
        atomic_write(folder.config_json, json.dumps(config.settings(), indent=2) + "\n")


def _set_aside(folder: RunFolder, damaged: str) -> None:
    """Keeps a damaged `run.json` under another name, and prints what is lost.

    Only the first damaged one is kept: later ones know less.
    """
    kept = ""
    if exists(folder.description) and not exists(folder.damaged_description):
        folder.description.rename(folder.damaged_description)
        kept = f", and stays as {folder.damaged_description}"
    print(
        f"{damaged}{kept}: it is written anew, and which checkpoint the run began with is not "
        "known any more",
        flush=True,
    )


def write_bad_batch(
    folder: RunFolder, number: int, process: int, batch: Mapping[str, np.ndarray]
) -> epath.Path:
    """Writes the rows of a batch that this process has read, for inspection with `numpy.load`.

    Batches are counted from 1. `batch` has arrays [B, L]; the rows of other processes are padding.
    The file has the arrays without these, and `rows`, the indices of the written rows in the batch.
    Raises UserError if it cannot be written.
    """
    path = folder.bad_batch(number, process)
    here = np.any([array.any(axis=1) for array in batch.values()], axis=0)  # [B]
    rows: dict[str, Any] = {name: array[here] for name, array in batch.items()}
    with explain_write_errors(path):
        path.parent.mkdir(exist_ok=True)
        np.savez(content := io.BytesIO(), rows=np.flatnonzero(here), **rows)
        path.write_bytes(content.getvalue())
    return path
