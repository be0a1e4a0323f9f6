"""One model in all its forms: of others, and converted to runs."""

import pytest

from tests.conversion.folders import (
    VOCABULARY,
    WIDE,
    WIDE_TENSORS,
    convert,
    with_vocabulary,
    write_folder,
)
from tests.conversion.t5x.checkpoints import t5x_tensors, tied, write_checkpoint


@pytest.fixture(scope="session")
def theirs(tmp_path_factory):
    """A Hugging Face folder."""
    folder = tmp_path_factory.mktemp("hugging_face") / "switch-tiny"
    return with_vocabulary(write_folder(folder, WIDE, WIDE_TENSORS))


@pytest.fixture(scope="session")
def run(theirs):
    return convert(theirs, theirs.parent / "run")


@pytest.fixture(scope="session")
def t5x(tmp_path_factory):
    """The folder of a T5X checkpoint."""
    folder = tmp_path_factory.mktemp("t5x") / "base"
    write_checkpoint(folder / "checkpoint_7", tied(t5x_tensors(WIDE_TENSORS)), layout="local")
    return folder


@pytest.fixture(scope="session")
def t5x_run(t5x):
    return convert(t5x, t5x.parent / "run", f"--gin.VOCABULARY={VOCABULARY}")
