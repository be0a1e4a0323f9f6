import numpy as np

from switch_jax.reports.series import band_caption, mean_curve
from tests.reports.by_hand import series


def test_the_band_of_two_seeds_is_both():
    a = series([(100, -4.0), (200, -3.0)], seconds_per_step=1.0)
    b = series([(100, -5.0), (200, -2.0)], seconds_per_step=2.0)
    curve = mean_curve([a, b], "neg_log_perplexity")
    assert curve.step.tolist() == [100, 200] and curve.seconds.tolist() == [150, 300]
    assert curve.mean.tolist() == [-4.5, -2.5]
    assert curve.low.tolist() == [-5.0, -3.0] and curve.high.tolist() == [-4.0, -2.0]


def test_the_band_of_three_seeds_is_one_standard_deviation():
    curve = mean_curve([series([(1, x)]) for x in (-5.0, -4.0, -3.0)], "neg_log_perplexity")
    assert (curve.low.item(), curve.mean.item(), curve.high.item()) == (-5.0, -4.0, -3.0)
    curve = mean_curve([series([(1, x)]) for x in (-6.0, -3.0, -3.0)], "neg_log_perplexity")
    np.testing.assert_allclose([curve.low, curve.high], [[-4 - 3**0.5], [-4 + 3**0.5]])


def test_a_seed_that_has_not_got_as_far_leaves_the_mean_to_the_others():
    far = series([(100, -4.0), (200, -3.0), (300, -2.0)])
    near = series([(100, -5.0), (150, -4.5)])
    curve = mean_curve([far, near], "neg_log_perplexity")
    assert curve.step.tolist() == [100, 150, 200, 300]
    assert curve.mean.tolist() == [-4.5, -4.0, -3.0, -2.0]
    np.testing.assert_array_equal(curve.low, [-5.0, -4.5, np.nan, np.nan])


def test_one_run_has_no_band_and_keeps_what_is_not_finite():
    curve = mean_curve([series([(1, -4.0), (2, np.nan)])], "neg_log_perplexity")
    np.testing.assert_array_equal(curve.mean, [-4.0, np.nan])
    assert np.isnan(curve.low).all() and np.isnan(curve.high).all()
    assert mean_curve([series([(1, -4.0)])], "content_neg_log_perplexity") is None
    assert mean_curve([], "neg_log_perplexity") is None


def test_the_caption_says_what_a_band_is():
    assert band_caption([1, 1]) == ""
    assert band_caption([1, 2]) == (
        "Line = mean over seeds; band = from the lower to the higher of 2 seeds."
    )
    assert band_caption([2, 3], line="Point").startswith("Point = mean over seeds")
    assert band_caption([2, 3]).endswith(
        "2 seeds, or one standard deviation of 3 seeds either side of the mean."
    )
