"""A checkpoint in a bucket that loses answers."""

from orbax.checkpoint._src.serialization import tensorstore_utils

from tests.checkpointing.small_state import save_steps
from tests.storage.slow_proxy import Faults


def test_a_save_takes_what_it_has_written_for_its_own(faulty_storage, bucket_path, monkeypatch):
    retries = {"max_retries": 100, "initial_delay": "10ms", "max_delay": "10ms"}
    defaults = tensorstore_utils._DEFAULT_OCDBT_TS_CONTEXT
    monkeypatch.setitem(defaults, "gcs_request_retries", retries)
    faults = faulty_storage.num_faults
    faulty_storage.faults = Faults(cut=0.5, of="^POST .*ifGenerationMatch")
    save_steps(bucket_path, range(1, 6)).close()
    assert faulty_storage.num_faults > faults + 4
