import numpy as np
import pytest

from switch_jax.reports.power_law import checked_fit, fit

STEP = np.arange(100, 6001, 100)


def falling(step, a=1.5, b=0.8, c=0.4):
    return a + b * (step / 1000) ** -c


@pytest.mark.parametrize(("a", "b", "c"), [(1.5, 0.8, 0.4), (0.2, 2.0, 0.1), (2.0, 0.1, 1.5)])
def test_a_curve_that_is_a_power_law_gives_its_numbers_back(a, b, c):
    loss = falling(STEP, a, b, c)
    loss[:19] = 9.0  # before a third of the steps
    law = fit(STEP, loss)
    np.testing.assert_allclose([law.a, law.b, law.c], [a, b, c], rtol=1e-3)
    assert law.first_step == 2000
    np.testing.assert_allclose(
        law.step(falling(np.array([500, 20_000]), a, b, c)), [500, 2e4], 0.01
    )


def test_a_loss_that_the_law_never_has_is_at_no_step():
    law = fit(STEP, falling(STEP))
    assert law.step(np.array([1.5, 1.4])).tolist() == [np.inf, np.inf]


def test_noise_moves_the_law_little():
    noise = np.random.default_rng(0).normal(0, 0.002, len(STEP))
    assert fit(STEP, falling(STEP) + noise).loss(12_000) == pytest.approx(
        falling(12_000), abs=0.005
    )


@pytest.mark.parametrize(
    ("step", "loss"),
    [
        (STEP[:13], falling(STEP[:13])),  # nine after step 433
        (STEP, 1.0 + 0.1 * STEP / 1000),  # rises
        (np.array([]), np.array([])),
    ],
)
def test_few_points_and_those_that_do_not_fall_give_no_law(step, loss):
    assert fit(step, loss) is None


def test_a_fit_is_checked_by_its_first_half():
    loss = falling(STEP)
    loss[-1] -= 0.01
    assert checked_fit(STEP, loss)[1] == pytest.approx(0.01, abs=1e-4)
    half_too_short = STEP[:26]  # nine from step 500 to 1300
    assert fit(half_too_short, falling(half_too_short)) is not None
    assert checked_fit(half_too_short, falling(half_too_short)) is None
