import pytest
import seqio

from switch_jax.launch import preflight


@pytest.fixture(autouse=True)
def checked(monkeypatch):
    """The buckets of the tests are not there: their check writes down the job's name alone."""
    names = []
    monkeypatch.setattr(preflight, "check_storage", lambda job, config: names.append(job.name))
    return names


@pytest.fixture(autouse=True)
def own_data_dir():
    """What --tfds_data_dir sets holds for the process, and other tests read elsewhere."""
    yield
    seqio.set_tfds_data_dir_override(None)
