import pytest
import seqio


@pytest.fixture(autouse=True)
def own_data_dir():
    """What --tfds_data_dir sets holds for the process, and other tests read elsewhere."""
    yield
    seqio.set_tfds_data_dir_override(None)
