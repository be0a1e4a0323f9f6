import pytest
import seqio

from switch_jax.launch import preflight


@pytest.fixture(autouse=True)
def checked(monkeypatch):
    """gs://my-bucket is not there: its check writes down MODEL_DIR alone."""
    folders, check_storage = [], preflight.check_storage

    def check(config):
        folder = config.run.model_dir
        return folders.append(folder) if "gs://my-bucket/" in folder else check_storage(config)

    monkeypatch.setattr(preflight, "check_storage", check)
    return folders


@pytest.fixture(autouse=True)
def own_data_dir():
    """What --tfds_data_dir sets holds for the process, and other tests read elsewhere."""
    yield
    seqio.set_tfds_data_dir_override(None)
