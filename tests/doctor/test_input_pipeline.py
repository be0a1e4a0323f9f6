"""Tokens a second of the input pipeline, and data that cannot be read."""

import dataclasses

import pytest

import tests.trainer.tiny_task  # noqa: F401  registers tiny_copy
from switch_jax.config import MeshConfig
from switch_jax.data import train_batches
from switch_jax.doctor import input_pipeline
from switch_jax.doctor.checks import Verdict
from switch_jax.doctor.input_pipeline import input_check, input_tokens_per_second
from switch_jax.doctor.speed import Machine
from switch_jax.partitioning.mesh import make_mesh
from tests.trainer.helpers import tiny_config, tiny_model

CONFIG = tiny_config(tiny_model(), batch_size=8, lengths=(16, 8), mesh=MeshConfig(2, 1, 1))
MACHINE = Machine(make_mesh(CONFIG.mesh))


def test_tokens_are_those_of_the_rows_that_were_read_in_this_time(monkeypatch):
    """The first batch takes a minute, and each other one half a second."""
    clock = [0.0]

    class Batches:
        def __init__(self, opened, batch_size, needed_rows):
            assert (batch_size, needed_rows) == (8, list(range(8)))
            self.next_takes = 60.0

        def __next__(self):
            clock[0] += self.next_takes
            self.next_takes = 0.5

    monkeypatch.setattr(train_batches, "TrainBatches", Batches)
    monkeypatch.setattr(input_pipeline.time, "monotonic", lambda: clock[0])
    assert input_tokens_per_second(CONFIG, 3.0) == 8 * (16 + 8) / 0.5


def test_a_task_is_read(monkeypatch):
    monkeypatch.setattr(input_pipeline, "_SECONDS", 0.1)
    found = input_check(CONFIG, MACHINE)
    assert found.verdict == Verdict.OK, found
    assert found.numbers["tokens_per_second"] > 1000


@pytest.mark.parametrize("rate, verdict", [(999.0, Verdict.FAILED), (1001.0, Verdict.OK)])
def test_a_host_must_prepare_what_the_step_takes(monkeypatch, rate, verdict):
    machine = Machine(make_mesh(CONFIG.mesh))
    machine.step_tokens_per_second = 1000.0
    monkeypatch.setattr(input_pipeline, "input_tokens_per_second", lambda *_: rate)
    found = input_check(CONFIG, machine)
    assert found.verdict == verdict and "of which the step takes 1,000" in found.text
    assert ("the step waits for data" in str(found)) == (verdict == Verdict.FAILED)


def test_data_that_cannot_be_read_are_reported_in_words():
    data = dataclasses.replace(CONFIG.data, mixture_or_task_name="tiny_cpy")
    found = input_check(dataclasses.replace(CONFIG, data=data), MACHINE)
    assert str(found).startswith("failed   : tiny_cpy cannot be read: ")
    assert "did you mean tiny_copy?" in str(found)
    assert str(found).endswith(input_pipeline._ADVICE)
