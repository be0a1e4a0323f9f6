"""`switch_jax convert` from T5X checkpoints."""

import json

import numpy as np
import pytest

from switch_jax.cli import main
from tests.conversion.folders import TENSORS, VOCABULARY, convert, write_folder
from tests.conversion.t5x.checkpoints import t5x_tensors, write_checkpoint
from tests.conversion.test_convert import WIDE, WIDE_TENSORS, parameters_of
from tests.conversion.test_folder import assert_equal
from tests.model.test_huggingface_oracle import ours

THEIRS = {n: t for n, t in t5x_tensors(WIDE_TENSORS).items() if n != "decoder/logits_dense/kernel"}
VOCABULARY_FLAG = f"--gin.VOCABULARY={VOCABULARY}"


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("theirs") / "base/checkpoint_7", THEIRS)


@pytest.fixture(scope="module")
def run(theirs):
    return convert(theirs.parent, theirs.parents[1] / "run", VOCABULARY_FLAG)


def test_a_run_is_that_of_its_twin(theirs, run, tmp_path):
    twin = convert(write_folder(tmp_path / "twin", WIDE, WIDE_TENSORS), tmp_path / "run")
    assert_equal(parameters_of(run), ours(WIDE_TENSORS))
    assert_equal(parameters_of(twin), ours(WIDE_TENSORS))
    facts, others = (json.loads((folder / "run.json").read_text()) for folder in (run, twin))
    assert facts["initial_checkpoint"] == str(theirs.parent)
    for name in ("parameters", "num_experts", "flops_per_token"):
        assert facts[name] == others[name]


def test_the_vocabulary_is_t5_s_unless_one_is_named(tmp_path, capsys):
    folder = write_checkpoint(tmp_path / "theirs", t5x_tensors(TENSORS), layout="inline")
    run = convert(folder, tmp_path / "run")
    assert "has no spiece.model, so VOCABULARY is 't5': check that" in capsys.readouterr().out
    assert "VOCABULARY = 't5'" in (run / "config.gin").read_text()


def test_inspect_describes_it(theirs, run, capsys):
    lines = []
    for path in (theirs, run):
        assert main(["convert", "--inspect", str(path)]) == 0
        lines.append(capsys.readouterr().out.splitlines())
    fields = dict(line.split(maxsplit=1) for line in lines[0])
    assert fields["format"] == (
        "T5X checkpoint, version 3, with the optimiser's state, which is left out"
    )
    assert fields["step"] == "7" and fields["vocabulary"] == "no spiece.model in the folder"
    of_both = [each[[line.split()[0] for line in each].index("parameters") :] for each in lines]
    assert of_both[0] == of_both[1], "the parameters are the same"


def test_a_spiece_model_that_is_put_there_is_taken(tmp_path):
    folder = write_checkpoint(tmp_path / "theirs", THEIRS, layout="inline")
    (folder / "spiece.model").write_bytes(VOCABULARY.read_bytes())
    run = convert(folder, tmp_path / "run")
    assert (run / "spiece.model").read_bytes() == VOCABULARY.read_bytes()
    np.testing.assert_array_equal(
        parameters_of(run)["token_embedding"]["embedding"], WIDE_TENSORS["shared.weight"]
    )
