import pytest
import seqio

from switch_jax.launch import preflight


@pytest.fixture(autouse=True)
def no_bucket(monkeypatch):
    """gs://my-bucket is not there, and is not looked for."""
    check_storage = preflight.check_storage

    def check(config):
        if "gs://my-bucket/" not in config.run.model_dir:
            check_storage(config)

    monkeypatch.setattr(preflight, "check_storage", check)


@pytest.fixture(autouse=True)
def own_data_dir():
    """What --tfds_data_dir sets holds for the process, and other tests read elsewhere."""
    yield
    seqio.set_tfds_data_dir_override(None)
