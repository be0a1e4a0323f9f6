import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.config import GuardConfig
from switch_jax.train_step.bad_step_guard import init_guard, judge
from tests.train_step.guard_simulation import DIVERGING, HEALTHY, SPOILT, simulate

WINDOW = 8
_JUDGE = jax.jit(judge, static_argnums=1)


def _sequence(length: int, seed: int) -> np.ndarray:
    """[length, 2] losses and gradient norms: noise, with spikes, NaN and infinities in either."""
    rng = np.random.default_rng(seed)
    values = rng.normal((3.0, 1.0), (0.1, 0.05), (length, 2)).astype(np.float32)
    for bad in (np.nan, np.inf, -np.inf, 5.0, 30.0, 1e6):
        where = rng.random((length, 2)) < 0.02
        values[where] = bad
    return values


class _Reference:
    """The rule once more, with lists and NumPy alone."""

    def __init__(self, sigmas, bad_steps_in_a_row=10):
        self.spike_sigmas, self.patience = sigmas, min(5, bad_steps_in_a_row - 1)
        self.recent, self.good, self.in_a_row, self.norm_above = [], 0, 0, 0

    def limits(self):
        """Medians and limits, in logarithms; None where there are no limits."""
        # Of window 8 the newest 2 are left out; of the 6, one may still be missing.
        older = np.sort(np.array(self.recent[-WINDOW:][: -WINDOW // 4]).reshape(-1, 2), axis=0)
        missing = WINDOW - min(len(self.recent), WINDOW)
        if self.spike_sigmas is None or missing:
            return None
        median, upper = older[3], older[5]  # of 6: the upper median, and the largest
        rise = np.maximum(self.spike_sigmas * (upper - median) / 1.2816, np.log([1.1, 4.0]))
        return median, np.maximum(median + rise, np.log([0.01, 1e-30]))

    def judge(self, loss, norm):
        """Whether it is bad."""
        if not (np.isfinite(loss) and np.isfinite(norm)):
            self.in_a_row, self.norm_above = self.in_a_row + 1, max(self.norm_above - 1, 0)
            return True
        logs = np.log(np.float64([loss, norm]))
        found = self.limits()
        above = logs > found[1] if found else [False, False]
        norm_alone = above[1] and not above[0]
        believed = norm_alone and self.norm_above == self.patience
        bad = above[0] or (norm_alone and not believed)
        self.norm_above = (
            min(self.norm_above + 1, self.patience) if norm_alone else max(self.norm_above - 1, 0)
        )
        if believed:
            move = np.array([0.0, logs[1] - found[0][1]])
            self.recent = [old + move for old in self.recent]
        if not bad or self.in_a_row == 0:
            self.recent.append(logs)
        self.in_a_row = self.in_a_row + 1 if bad else 0
        self.good += not bad
        return bad


@pytest.mark.parametrize(("sigmas", "bad_steps_in_a_row"), [(6.0, 10), (2.0, 3), (None, 10)])
def test_judge_is_what_lists_and_numpy_say(sigmas, bad_steps_in_a_row):
    config = GuardConfig(spike_window=WINDOW, spike_sigmas=sigmas, max_bad_steps=bad_steps_in_a_row)
    reference = _Reference(sigmas, bad_steps_in_a_row)
    values = _sequence(800, seed=1)
    values[300:, 1] *= 7  # a norm that rises for good
    values[450:480, 0] *= 4  # a loss that stays up for long

    def step(guard, pair):
        bad, limits, guard = judge(guard, config, *pair)
        return guard, (bad, limits, guard)

    found = jax.device_get(jax.lax.scan(step, init_guard(config), values)[1])
    kinds = {"spike": 0, "not finite": 0, "several in a row": 0, "believed": 0}
    for number, pair in enumerate(values):
        limits, in_a_row = reference.limits(), reference.in_a_row
        expected = reference.judge(*pair)
        bad, told_limits, guard = jax.tree.map(lambda x, i=number: x[i], found)
        state = (reference.good, reference.in_a_row, reference.norm_above)
        assert (bool(bad), *map(int, guard[1:])) == (expected, *state)
        wanted = np.exp(limits[1]) if limits else np.full(2, np.inf)
        np.testing.assert_allclose(told_limits, wanted, rtol=1e-5)
        kept = np.array(reference.recent[-WINDOW:]).reshape(-1, 2).T
        np.testing.assert_allclose(guard.recent[:, WINDOW - kept.shape[1] :], kept, atol=1e-5)
        assert np.isinf(guard.recent[:, : WINDOW - kept.shape[1]]).all()
        kinds["not finite"] += not np.isfinite(pair).all()
        kinds["spike"] += bool(bad) and np.isfinite(pair).all()
        kinds["several in a row"] += in_a_row > 1
        kinds["believed"] += not bad and limits is not None and np.log(pair[1]) > limits[1][1]
    assert kinds["not finite"] > 20 and kinds["several in a row"] > 3
    assert (kinds["spike"] > 10) == (kinds["believed"] > 0) == (sigmas is not None)


def _judged(config, pairs, guard=None):
    """Whether each of these steps, one after the other, is bad; and the guard after them."""
    guard = guard or init_guard(config)
    found = []
    for loss, norm in pairs:
        bad, _, guard = _JUDGE(guard, config, jnp.float32(loss), jnp.float32(norm))
        found.append(bool(bad))
    return found, guard


@pytest.mark.parametrize(
    ("loss", "cases"),
    [
        (2.0, {(2.19, 1.99): False, (2.21, 0.5): True, (2.0, 2.01): True}),
        (1e-5, {(0.0099, 0.5): False, (0.0101, 0.5): True}),
    ],
)
def test_where_nothing_varies_a_limit_is_a_tenth_above_or_a_hundredth_and_a_norms_four_times(
    loss, cases
):
    config = GuardConfig(spike_window=WINDOW)
    _, guard = _judged(config, [(loss, 0.5)] * WINDOW)
    for pair, bad in cases.items():
        assert _judged(config, [pair], guard)[0] == [bad]


def test_a_norm_of_twice_its_neighbours_is_kept_while_norms_rise_as_in_fine_tuning():
    norms = 0.29 * 1.5 ** np.clip((np.arange(128) - 68) / 60, 0, 1)  # steady, then half more
    _, guard = _judged(GuardConfig(), [(4.0, norm) for norm in norms])
    # 3.2 times the median of the steps before the rise.
    assert _judged(GuardConfig(), [(4.0, 0.938)], guard)[0] == [False]
    assert _judged(GuardConfig(), [(4.0, 5 * 0.29)], guard)[0] == [True]


@pytest.mark.parametrize(("bad_steps_in_a_row", "skipped"), [(10, 5), (5, 4), (1, 0)])
def test_a_norm_that_stays_up_is_believed_before_the_run_goes_back(bad_steps_in_a_row, skipped):
    config = GuardConfig(spike_window=WINDOW, max_bad_steps=bad_steps_in_a_row)
    _, guard = _judged(config, [(2.0, 0.5)] * WINDOW)
    found, guard = _judged(config, [(2.0, 50.0)] * 20, guard)
    assert found == [True] * skipped + [False] * (20 - skipped)
    # The limit is now four times the new level.
    assert _judged(config, [(2.0, 199.0)], guard)[0] == [False]
    if skipped:
        assert _judged(config, [(2.0, 201.0)], guard)[0] == [True]


SEEDS = 10
OUTCOMES = functools.cache(
    lambda: simulate(HEALTHY + SPOILT + DIVERGING, GuardConfig(), seeds=SEEDS)
)
NUMBERS = {kind.name: number for number, kind in enumerate(HEALTHY + SPOILT + DIVERGING)}


@pytest.mark.parametrize("kind", HEALTHY, ids=lambda kind: kind.name)
def test_healthy_runs_reach_their_end_with_few_steps_skipped(kind):
    outcome = OUTCOMES()[NUMBERS[kind.name]]
    assert (outcome.stopped, outcome.returns) == (0, 0)
    assert outcome.lost < 20  # of 500 steps; most where the norm rises just to its limit


@pytest.mark.parametrize("kind", SPOILT, ids=lambda kind: kind.name)
def test_spoilt_batches_are_skipped_and_the_run_goes_on(kind):
    outcome = OUTCOMES()[NUMBERS[kind.name]]
    assert outcome.spoilt and (outcome.stopped, outcome.learnt, outcome.lost) == (0, 0, 0)


@pytest.mark.parametrize("kind", DIVERGING, ids=lambda kind: kind.name)
def test_runs_that_diverge_are_stopped_after_their_returns(kind):
    outcome = OUTCOMES()[NUMBERS[kind.name]]
    assert (outcome.stopped, outcome.returns) == (SEEDS, GuardConfig().max_rollbacks)
