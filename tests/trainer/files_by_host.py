"""A task whose files each process of a run has in a folder of its own, FILES_BY_HOST/INDEX."""

import os
import sys
from pathlib import Path

import seqio

from tests.trainer import tiny_task  # noqa: F401  registers it

_FLAG = "--process_index="
_INDEX = next((a.removeprefix(_FLAG) for a in sys.argv if a.startswith(_FLAG)), "0")
_FILES = str(Path(os.environ["FILES_BY_HOST"]) / _INDEX / "*.txt")
_COPY = seqio.TaskRegistry.get("tiny_copy")

seqio.TaskRegistry.add(
    "files_by_host",
    source=seqio.TextLineDataSource({"train": _FILES, "validation": _FILES}),
    preprocessors=_COPY.preprocessors,
    output_features=_COPY.output_features,
)
