"""Runs of a decoder alone: trained, evaluated, continued exactly."""

import dataclasses

import numpy as np
import pytest

from tests.trainer.tiny_runs import FAST, MODEL, bits, records_of, step_hashes, train_tiny

ALONE = dataclasses.replace(MODEL, num_encoder_layers=0, num_decoder_layers=2)
RUN = {"model": ALONE, "optimizer": FAST}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one_stack") / "whole"
    return folder, train_tiny(folder, 6, **RUN)


def test_its_records_are_of_the_decoder(whole):
    folder, state = whole
    assert set(state.parameters) == {"token_embedding", "decoder"}
    records = records_of(folder, "train")
    assert set(records[-1]["router"]) == {"decoder"}
    assert np.isfinite([r["cross_entropy"] for r in records]).all()
    losses = [r["cross_entropy"] for r in records_of(folder, "eval")]
    assert losses[0] > losses[-1] > 0


def test_a_stopped_run_goes_on_exactly(whole, tmp_path):
    folder, state = whole
    train_tiny(tmp_path / "run", 3, **RUN)
    again = train_tiny(tmp_path / "run", 6, **RUN)
    assert bits(again) == bits(state)
    assert step_hashes(tmp_path / "run") == step_hashes(folder)
