import pytest

from tests.checkpointing.small_state import save_steps


@pytest.fixture(scope="session")
def two(tmp_path_factory):
    """A folder with the checkpoints of steps 1 and 2, which stays as it is."""
    folder = tmp_path_factory.mktemp("two")
    save_steps(folder, [1, 2]).close()
    return folder
