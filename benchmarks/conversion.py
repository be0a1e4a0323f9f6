"""Memory and time of converting a model with random weights, both ways: a table.

    python benchmarks/conversion.py /tmp/conversion --model=switch_base_8

The folder is made, and removed at the end; it takes about four times the model's float32 size.
Anonymous memory is what the process allocates itself; the rest of the resident memory are pages of
mapped files, which the system takes back when it needs them.
"""

import argparse
import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from switch_jax import gin_config
from switch_jax.conversion.hugging_face.model_config import MODEL_TYPES, fitting_types
from switch_jax.conversion.tensor_layout import TensorNames
from switch_jax.conversion.to_run import write_run
from switch_jax.data.catalogue.configured_tasks import vocabulary_fingerprints
from switch_jax.model import abstract_parameters

TASK = "english_span_corruption"


class RandomTensors:
    """Stands in for `StackedTensors`; the numbers are drawn when they are read."""

    def __init__(self, names: TensorNames, shape: tuple[int, ...]) -> None:
        self.stacked_axes, self.shape = names.stacked_axes, shape
        self._rng = np.random.default_rng(0)

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        shape = [len(range(*s.indices(n))) for s, n in zip(index, self.shape, strict=True)]
        return self._rng.standard_normal(shape, dtype=np.float32)


def write_random_run(folder: Path, model: str) -> None:
    """A run's folder with a checkpoint of random parameters."""
    files = [f"models/{model}.gin", "runs/pretrain.gin"]
    read = gin_config.read(files, [f"MODEL_DIR={folder}", f"MIXTURE_OR_TASK_NAME={TASK}"])
    config = read.config
    family = MODEL_TYPES[fitting_types(config.model)[0]].family
    parameters = jax.tree.map(
        lambda names, s: RandomTensors(names, s.shape),
        family.tensor_names(config.model),
        abstract_parameters(config.model),
    )
    found = vocabulary_fingerprints(config.data)
    write_run(folder, parameters, config, read.text, folder, None, found, without_bar)


def without_bar(size: int) -> contextlib.nullcontext[Callable[[int], None]]:
    """In place of a progress bar."""
    return contextlib.nullcontext(lambda done: None)


def measure(name: str, source: Path, target: Path) -> tuple[float, dict[str, int]]:
    """Runs a command: its seconds, and the most memory by /proc/PID/status, in bytes."""
    command = [sys.executable, "-m", "switch_jax", name, str(source), str(target)]
    start, largest = time.monotonic(), dict.fromkeys(("VmRSS", "RssAnon"), 0)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        with contextlib.suppress(OSError):
            status = dict(
                line.split(":", 1)
                for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
            )
            for name in largest.keys() & status.keys():
                largest[name] = max(largest[name], 1024 * int(status[name].split()[0]))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return time.monotonic() - start, largest


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="switch_base_8", help="a file of gin/models")
    args = parser.parse_args()
    args.folder.mkdir()
    try:
        run, theirs, again = (args.folder / name for name in ("run", "theirs", "again"))
        write_random_run(run, args.model)
        rows = [
            ("to Hugging Face", measure("convert", run, theirs)),
            ("from Hugging Face", measure("convert", theirs, again)),
        ]
        shard = max(file.stat().st_size for file in theirs.iterdir())
    finally:
        shutil.rmtree(args.folder)
    print(f"{args.model}: the largest file of tensors has {shard / 1e9:.2f} GB")
    print("| direction | seconds | resident memory | of it anonymous |\n| --- | --- | --- | --- |")
    for name, (seconds, largest) in rows:
        resident, anonymous = (f"{largest[key] / 1e9:.2f} GB" for key in ("VmRSS", "RssAnon"))
        print(f"| {name} | {seconds:.0f} | {resident} | {anonymous} |")


if __name__ == "__main__":
    main()
