import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.errors import UserError
from switch_jax.training.guard import GuardConfig, init_guard, judge

WINDOW = 8


def _sequence(length: int, seed: int) -> np.ndarray:
    """[length, 2] losses and gradient norms: noise, with spikes, NaN and infinities in either."""
    rng = np.random.default_rng(seed)
    values = rng.normal((3.0, 1.0), (0.1, 0.05), (length, 2)).astype(np.float32)
    for bad in (np.nan, np.inf, -np.inf, 5.0, 30.0, 1e6):
        where = rng.random((length, 2)) < 0.02
        values[where] = bad
    return values


def _expected(values: np.ndarray, sigmas: float | None):
    """(bad, good, skipped, in_a_row) after each step, from a list of the good values."""
    good: list[np.ndarray] = []
    skipped = in_a_row = 0
    for pair in values:
        bad = not np.isfinite(pair).all()
        if sigmas is not None and len(good) >= WINDOW:
            last = np.array(good[-WINDOW:], np.float64)
            bad |= bool((pair > last.mean(0) + sigmas * last.std(0)).any())
        if bad:
            skipped, in_a_row = skipped + 1, in_a_row + 1
        else:
            in_a_row = 0
            good.append(pair)
        yield bad, len(good), skipped, in_a_row, good[-WINDOW:]


@pytest.mark.parametrize("sigmas", [6.0, 3.0, None])
def test_judge_is_what_a_list_of_the_good_steps_says(sigmas):
    config = GuardConfig(window=WINDOW, sigmas=sigmas)
    values = _sequence(400, seed=1)
    compiled = jax.jit(lambda guard, pair: judge(guard, config, pair[0], pair[1]))
    guard = init_guard(config)
    kinds = {"spike": 0, "not finite": 0, "several in a row": 0}
    for pair, expected in zip(values, _expected(values, sigmas), strict=True):
        bad, guard = compiled(guard, pair)
        told = (bool(bad), int(guard.good), int(guard.skipped), int(guard.in_a_row))
        assert told == expected[:4]
        window = expected[4]
        kept = np.asarray(guard.history).T[: len(window)]
        # A ring: the same values, in whatever place.
        np.testing.assert_array_equal(np.sort(kept, 0), np.sort(np.array(window or kept), 0))
        kinds["not finite"] += not np.isfinite(pair).all()
        kinds["spike"] += told[0] and np.isfinite(pair).all()
        kinds["several in a row"] += told[3] > 1
    assert kinds["not finite"] > 20 and kinds["several in a row"] > 3
    assert (kinds["spike"] > 10) == (sigmas is not None)


def test_until_the_window_is_full_only_what_is_not_finite_is_bad():
    config = GuardConfig(window=WINDOW, sigmas=1.0)
    guard = init_guard(config)
    for number in range(WINDOW):
        bad, guard = judge(guard, config, jnp.float32(np.nan), jnp.float32(1.0))
        assert bad and int(guard.good) == number
        bad, guard = judge(guard, config, jnp.float32(10.0**number), jnp.float32(1.0))
        assert not bad
    bad, guard = judge(guard, config, jnp.float32(10.0**WINDOW), jnp.float32(1.0))
    assert bad
    assert (int(guard.good), int(guard.skipped), int(guard.in_a_row)) == (WINDOW, WINDOW + 1, 1)


def test_a_fall_is_not_bad():
    config = GuardConfig(window=2, sigmas=1.0)
    guard = init_guard(config)
    for loss in (5.0, 6.0, -100.0):
        bad, guard = judge(guard, config, jnp.float32(loss), jnp.float32(1.0))
        assert not bad


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"window": 1}, "window = 1"),
        ({"bad_steps_in_a_row": 0}, "bad_steps_in_a_row = 0"),
        ({"sigmas": 0.0}, r"sigmas = 0\.0: it must be above 0"),
        ({"sigmas": -1.0}, r"sigmas = -1\.0"),
        ({"rollbacks": -1}, "rollbacks = -1"),
        ({"dumped_batches": -1}, "dumped_batches = -1"),
    ],
)
def test_values_that_make_no_sense_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        GuardConfig(**values)
