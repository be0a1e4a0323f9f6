"""Runs that meet bad batches: what they skip, where they go back to, and what they say."""

import itertools
from dataclasses import replace

import jax
import numpy as np
import pytest

from switch_jax.config import GuardConfig
from switch_jax.data.catalogue.checks import open_tasks
from switch_jax.data.train_batches import TrainBatches
from switch_jax.reports.run_status import read_status
from switch_jax.train_step.step import batch_hash
from switch_jax.utils.errors import UserError
from tests.run_folder.documented import problems, table_of
from tests.trainer.helpers import STACKS
from tests.trainer.tiny_runs import DATA, DENSE, FAST, records_of, step_hashes, train_tiny


@pytest.fixture
def poison(at_each_batch):
    """Spoils some global batches, by number from 1: their loss is NaN, or as the weights say."""

    def poison(numbers, weights=np.nan):
        def spoil(batch, number):
            if number in numbers:
                batch["decoder_loss_weights"][:] = weights

        at_each_batch(spoil)

    return poison


def _hashes(number):
    """Of the first batches of the data."""
    batches = itertools.islice(TrainBatches(open_tasks(DATA), STACKS, 8), number)
    return [int(batch_hash(STACKS, batch)) for batch, _ in batches]


def test_a_bad_batch_is_skipped_counted_and_written_out(tmp_path, poison, capsys):
    poison({4})
    state = train_tiny(tmp_path, 6)
    assert int(state.guard.good) == 5 and int(state.guard.in_a_row) == 0
    assert all(np.isfinite(p).all() for p in jax.tree.leaves(state.parameters))
    (skipped,) = records_of(tmp_path, "skipped")
    assert problems(skipped, table_of("skipped")) == []
    assert (skipped["step"], skipped["batch"], skipped["loss"]) == (4, 4, None)
    assert [r["skipped_steps"] for r in records_of(tmp_path, "train")] == [0, 0, 1, 0]
    assert step_hashes(tmp_path) == _hashes(6)
    written = np.load(tmp_path / "bad_batches" / "batch_4_process_0.npz")
    assert written["rows"].tolist() == list(range(8))
    assert written["encoder_input_tokens"].shape == (8, 32)
    assert np.isnan(written["decoder_loss_weights"]).all()
    assert "step 4 is bad and was skipped: loss nan is not finite, grad" in capsys.readouterr().out


def test_a_spike_is_skipped_and_told_with_its_limit(tmp_path, poison, capsys):
    weights = np.zeros((8, 16), np.float32)
    weights[:, 0], weights[:, 1] = 1000, -1000  # sums to 0: divided by 1, of huge gradients
    poison({6}, weights)
    state = train_tiny(tmp_path, 7)
    assert int(state.guard.good) == 6
    (skipped,) = records_of(tmp_path, "skipped")
    norm, limit = skipped["gradient_norm"], skipped["gradient_norm_limit"]
    assert norm > 100 * limit and 0 < skipped["loss_limit"] < 20
    told = f"gradient norm {norm:.6g} is above its limit {limit:.6g}; batch 6 is in"
    assert told in capsys.readouterr().out.replace("\n", " ")


def test_a_rate_at_which_activations_overflow_is_told(tmp_path, capsys):
    """The squares of RMSNorm are infinite then, and its outputs and most gradients exactly 0.

    Some are not finite; the steps that are skipped for that leave the count as it is.
    """
    absurd = replace(FAST, optimizer="adamw", learning_rate=1e6)
    changes = {"guard": GuardConfig(), "eval_period": None, "log_period": 1}
    train_tiny(tmp_path, 20, model=DENSE, optimizer=absurd, **changes)
    steps = records_of(tmp_path, "train")
    zero = [step["step"] for step in steps if step["gradient_norm"] == 0]
    told = capsys.readouterr().out.replace("\n", " ")
    assert f"10 good steps in a row, up to step {zero[9]}, was exactly 0" in told
    assert told.count("was exactly 0") == 1


def test_many_bad_batches_send_the_run_back_and_on_with_new_data(tmp_path, poison, capsys):
    """They cost no checkpoint to go back to: that of the bad step 6 would replace it."""
    poison({6, 7, 8})
    state = train_tiny(tmp_path, 9, keep_checkpoints=1, log_period=3)
    assert "3 bad steps in a row, up to step 8: back to step 3, and on" in capsys.readouterr().out
    assert int(state.step) == int(state.guard.good) == 9  # as of the checkpoint
    assert all(np.isfinite(p).all() for p in jax.tree.leaves(state.parameters))
    (rollback,) = records_of(tmp_path, "rollback")
    assert problems(rollback, table_of("rollback")) == []
    assert (rollback["step"], rollback["bad_steps"], rollback["back_to"]) == (8, 3, 3)
    assert read_status(tmp_path).rollbacks == 1
    records = records_of(tmp_path, "train")
    # Step 8, which was given up, has a record of its own, and no part in that of the new step 6.
    assert [r["step"] for r in records] == [3, 6, 8, 6, 9]
    assert [r["skipped_steps"] for r in records] == [0, 1, 2, 0, 0]
    # Steps 4 to 9 take the batches after the bad ones.
    assert step_hashes(tmp_path) == _hashes(14)


@pytest.mark.parametrize(
    ("first", "back_to", "skipped"),
    [
        # Two are too many, which shows when the third is under way: steps 5 and 6, twice 4 to 6.
        (5, 3, range(5, 13)),
        pytest.param(1, 0, range(1, 10), marks=pytest.mark.slow),  # three times 1 to 3
    ],
)
def test_bad_batches_without_end_stop_the_run_and_a_restart_does_not_see_them_again(
    tmp_path, poison, capsys, first, back_to, skipped
):
    poison(set(range(first, 1000)))
    message = r"3 bad .*after 2 returns.*step . is bad.*loss nan.*the skipped batches are in"
    with pytest.raises(UserError, match=message):
        train_tiny(tmp_path, 20)
    assert f"back to step {back_to}, and on with new data" in capsys.readouterr().out
    assert [r["batch"] for r in records_of(tmp_path, "skipped")] == list(skipped)
    status = read_status(tmp_path)
    assert (status.state, "after 2 returns" in status.message) == ("failed", True)
    poison(set())
    train_tiny(tmp_path, 6)
    assert f"continuing from the checkpoint of step {back_to} in {tmp_path}" in (
        capsys.readouterr().out
    )
    # The second return gave that checkpoint the data that come next.
    assert step_hashes(tmp_path)[back_to - 6 :] == _hashes(12)[back_to - 6 :]
