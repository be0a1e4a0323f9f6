"""A run whose folder is in a bucket: as on a disk, also where the bucket is slow and faulty."""

import itertools
import random

import jax
import numpy as np
import pytest
from orbax.checkpoint._src.serialization import tensorstore_utils

from switch_jax.reports.run_status import read_status
from switch_jax.run_folder import RunFolder, read_records
from switch_jax.storage import list_names
from switch_jax.storage.retries import Retries
from tests.storage.slow_proxy import Faults
from tests.trainer.tiny_runs import train_tiny


def _losses(folder):
    records = read_records(RunFolder(folder).metrics).value
    return [(r["step"], r["loss"]) for r in records if r["kind"] == "train"]


def test_a_run_in_a_bucket_is_stopped_and_goes_on_as_on_a_disk(whole, bucket_path):
    train_tiny(bucket_path, 3)
    resumed = train_tiny(bucket_path, 6)
    jax.tree.map(np.testing.assert_array_equal, resumed, whole[1])
    assert set(_losses(whole[0])) <= set(_losses(bucket_path))  # of step 3, too
    assert RunFolder(bucket_path).checkpoint_steps() == RunFolder(whole[0]).checkpoint_steps()
    events = list_names(RunFolder(bucket_path).tensorboard)
    assert len(events) == 2 and all("tfevents" in name for name in events)
    status = read_status(str(bucket_path))
    assert status.state == "finished" and status.step == 6


@pytest.mark.slow
def test_five_thousand_faults_change_nothing(faulty_storage, bucket_path, tmp_path, monkeypatch):
    """Of all requests 20 % are refused, and 8 % are done and their answers lost."""
    # With the usual pauses between repetitions, by our client and by TensorStore, it takes hours.
    monkeypatch.setattr(Retries, "waiting_times", lambda self: itertools.repeat(0.01, 100))
    retries = {"max_retries": 100, "initial_delay": "10ms", "max_delay": "10ms"}
    defaults = tensorstore_utils._DEFAULT_OCDBT_TS_CONTEXT
    monkeypatch.setitem(defaults, "gcs_request_retries", retries)
    steps, periods = 110, {"log_period": 1, "eval_period": 1000, "checkpoint_period": 1}
    undisturbed = train_tiny(tmp_path, steps, **periods)
    faults, requests = faulty_storage.num_faults, len(faulty_storage.requests)
    kinds, shares = (429, 500, 503, "lost", "cut", None), (20, 20, 20, 12, 12, 216)
    drawn = random.Random(0).choices(kinds, shares, k=10_000)
    faulty_storage.faults = Faults(itertools.cycle(drawn))
    state = train_tiny(bucket_path, steps, **periods)
    faulty_storage.faults = Faults()
    faults = faulty_storage.num_faults - faults
    print(f"{len(faulty_storage.requests) - requests} requests, {faults} faults")
    assert faults >= 5000
    jax.tree.map(np.testing.assert_array_equal, state, undisturbed)
    assert _losses(bucket_path) == _losses(tmp_path), "each record is there, and once"
    assert RunFolder(bucket_path).checkpoint_steps() == RunFolder(tmp_path).checkpoint_steps()
