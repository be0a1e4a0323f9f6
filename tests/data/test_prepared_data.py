"""Data from folders that TFDS prepared and from caches, and the errors where there is none."""

import pytest
import seqio

from switch_jax.cli import main
from switch_jax.config import DataConfig
from switch_jax.data.catalogue.checks import open_tasks
from switch_jax.data.train_batches import TrainBatches
from switch_jax.utils.errors import UserError
from tests.data.helpers import ANLI_RECORD, prepare
from tests.trainer.helpers import STACKS

pytestmark = pytest.mark.usefixtures("folders_as_before")

LENGTHS = {"inputs": 64, "targets": 32}
PAGE = {"text": "judge my vow " * 20}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Has ANLI's first round without its test split, and one language of mC4."""
    folder = tmp_path_factory.mktemp("tfds")
    prepare(
        folder, "anli", "r1", "0.1.0", {"train": [ANLI_RECORD] * 3, "validation": [ANLI_RECORD]}
    )
    # The current TFDS can read this version, but cannot make it.
    prepare(folder, "c4", "multilingual", "3.0.1", {"iw": [PAGE], "iw-validation": [PAGE]})
    return str(folder)


def test_a_prepared_folder_serves(folder, capsys):
    arguments = ["--split=train", "--examples=1", "--vocabulary=byte", f"--tfds_data_dir={folder}"]
    assert main(["tasks", "anli_r1", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "anli_r1, train, example 1"
    assert lines[2] == "    anli hypothesis: It snows. premise: It rains."
    # 13 letters, each 3 above its byte, and EOS.
    assert lines[3] == "  targets, 14 tokens: 102 114 113 119 117 100 ... 102 119 108 114 113 1"
    assert lines[4] == "    contradiction"


def test_a_folder_of_an_earlier_version_serves_and_streams(folder):
    seqio.set_tfds_data_dir_override(folder)
    config = DataConfig("mc4.iw", LENGTHS, vocabulary="byte")
    batch, _ = next(TrainBatches(open_tasks(config), STACKS, 2))
    assert batch["encoder_input_tokens"].shape == (2, 64)
    assert batch["decoder_loss_weights"].any(axis=1).all()


def test_missing_data_is_reported_with_its_folder_and_how_to_prepare_it(folder):
    seqio.set_tfds_data_dir_override(folder)
    message = (
        f"anli/r2:0.1.0, which is not in {folder}: .*tfds.builder.'anli/r2:0.1.0', data_dir=...."
    )
    with pytest.raises(UserError, match=message):
        open_tasks(DataConfig("anli_r2", LENGTHS))
    # A task of T5's, which asks TFDS for its splits.
    with pytest.raises(UserError, match="glue_cola_v002 reads .* glue/cola:1.0.0, which is not in"):
        open_tasks(DataConfig("glue_cola_v002", LENGTHS))


def test_splits_that_were_not_prepared_are_reported(folder):
    seqio.set_tfds_data_dir_override(folder)
    with pytest.raises(UserError, match="anli_r1 has no split 'test': .* are train, validation"):
        open_tasks(DataConfig("anli_r1", LENGTHS, split="test"))
    # A mixture does not silently leave out a task.
    with pytest.raises(
        UserError, match="mc4.af reads af, af-validation .* it has only iw, iw-validation: prepare"
    ):
        open_tasks(DataConfig("mc4", LENGTHS))
