"""The how-to pages on configs, data, upcycling and distilling, command by command."""

import pytest

from switch_jax.run_folder import RunFolder
from tests.docs.pages import follow, typed_here

# By page: runs that its commands train, and to which step.
RUNS = {
    "configs": {"four_experts": 20, "dense": 20, "my_config": 20, "eight": 20},
    "experts": {"sixteen": 20, "top_2": 20, "experts_choose": 20},
    "optimizers": {"muon": 20, "constant": 20},
    "prepare_data": {},
    "vocabularies": {"own_words": 20},
    "upcycling": {"dense": 20, "upcycled": 20},
    "distilling": {"teacher": 20, "student": 20},
}


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNS)
def test_every_command_of_the_page_runs(page, tmp_path):
    assert follow(typed_here(f"{page}.md"), tmp_path)
    for run, step in RUNS[page].items():
        assert (RunFolder(tmp_path / "runs" / run).checkpoints / str(step)).exists()
