"""Runs that differ in RANDOM_SEED alone are averaged, and others are not."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import ttest_ind

from switch_jax.drawing.figures import COLOURS
from switch_jax.reports import curves
from switch_jax.reports.chance import smallest_lead
from switch_jax.reports.comparison import compare_all
from switch_jax.reports.curves import STEPS
from switch_jax.reports.page import _card, sections
from switch_jax.reports.runs import SEEDS
from switch_jax.reports.seeds import average_seeds
from switch_jax.reports.table import table, text_lines
from tests.reports.by_hand import drawn, findings, run, series

STEP = [100, 200, 300]
# Held-out quality of three seeds of two settings: [seeds, steps].
DENSE = np.array([[-6.0, -5.0, -4.0], [-6.2, -5.1, -4.02], [-5.8, -4.9, -3.98]])
SWITCH = np.array([[-5.5, -4.5, -3.9], [-5.4, -4.3, -3.88], [-5.6, -4.7, -3.92]])


def seed_of(name, experts, values, seed, *, seconds_per_step=1.0, settings=(), **facts):
    """A run of a seed, through the first steps."""
    points = list(zip(STEP, values, strict=False))
    settings = {"NUM_EXPERTS": experts, **dict.fromkeys(SEEDS, seed), **dict(settings)}
    options = {"seconds_per_step": seconds_per_step, "settings": settings}
    return run(f"{name}_seed_{seed}", experts, points, **options, **{"seed": seed, **facts})


def seeds_of(name, experts, values, **options):
    return [seed_of(name, experts, row, seed, **options) for seed, row in enumerate(values)]


def both(**options):
    runs = seeds_of("dense", 0, DENSE) + seeds_of("switch", 8, SWITCH, **options)
    return average_seeds(runs)


def test_the_mean_and_its_spread():
    found, other = both()
    assert (found.name, other.name) == ("dense", "switch")
    for curve in (found.evals["t"], found.train):
        np.testing.assert_array_equal(curve.step, STEP)
        np.testing.assert_allclose(curve.get("neg_log_perplexity"), DENSE.mean(axis=0))
        deviation = np.sqrt(((DENSE - DENSE.mean(axis=0)) ** 2).sum(axis=0) / 2)
        np.testing.assert_allclose(curve.spread["neg_log_perplexity"], deviation)
    assert found.folder == "dense_seed_0, dense_seed_1, dense_seed_2"
    assert found.facts["seed"] == "0, 1, 2" and found.settings["RANDOM_SEED"] == [0, 1, 2]
    assert [seed.name for seed in found.seeds] == found.folder.split(", ")


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"LEARNING_RATE": 0.1}},
        {"settings": {"TRAIN_STEPS": 400}},
        {"device": "TPU v5e x 8"},
        {"initial_checkpoint": "/other"},
        {"train_steps": 400},  # it goes on, and the others have ended
        {"settings": dict.fromkeys(SEEDS, 0)},  # a second run of the same seed
    ],
)
def test_a_run_that_differs_in_something_else_stays_alone(change):
    start = seeds_of("dense", 0, DENSE, settings={"LEARNING_RATE": 0.2, "TRAIN_STEPS": 300})
    options = {"settings": {"LEARNING_RATE": 0.2, "TRAIN_STEPS": 300} | change.pop("settings", {})}
    other = seed_of("other", 0, DENSE[0], 7, **options, **change)
    averaged, alone = average_seeds([*start, other])
    assert len(averaged.seeds) == 3 and alone is other


def test_runs_that_go_on_are_averaged_apart():
    ended = seeds_of("dense", 0, DENSE)
    going = [
        dataclasses.replace(seed_of("going", 0, DENSE[0][:2], seed), unfinished=True)
        for seed in (7, 8)
    ]
    found = average_seeds([*ended, *going])
    assert [(one.name, len(one.seeds), one.last_step) for one in found] == [
        ("dense", 3, 300),
        ("going", 2, 200),
    ]


def test_what_an_unknown_config_sets_is_not_averaged():
    runs = [dataclasses.replace(one, settings={}) for one in seeds_of("dense", 0, DENSE)]
    assert average_seeds(runs) == runs


def test_seeds_of_other_lengths_are_averaged_to_their_last_common_step():
    runs = seeds_of("dense", 0, [DENSE[0], DENSE[1][:2], DENSE[2]])
    (found,) = average_seeds(runs)
    curve = found.evals["t"]
    assert curve.step.tolist() == [100, 200]
    np.testing.assert_allclose(curve.get("neg_log_perplexity"), DENSE[:, :2].mean(axis=0))
    assert found.left_out == ("dense is averaged up to step 200, the last that all its seeds have",)
    rows = table(findings(found))["Last values"]
    assert rows["Steps"] == ["200"]
    assert rows["Held-out neg. log perplexity [nats]"] == ["-5.000 ± 0.100"]
    apart = [runs[0], dataclasses.replace(runs[2], train=series([(7, 0)]), evals={})]
    assert average_seeds(apart) == apart, "they have no step in common"


def test_seeds_that_were_never_evaluated_at_the_same_step_are_not_averaged():
    runs = seeds_of("dense", 0, DENSE[:2])
    apart = [runs[0], dataclasses.replace(runs[1], evals={"t": series([(150, -3), (250, -2)])})]
    assert average_seeds(apart) == apart, "they have steps of training in common"


def test_a_seed_that_diverged_is_named():
    (found,) = average_seeds(seeds_of("dense", 0, [DENSE[0], [*DENSE[1][:2], np.nan]]))
    assert np.isnan(found.evals["t"].last("neg_log_perplexity"))
    assert found.left_out == (
        "dense_seed_1 may have diverged: its last value is not a number, so dense has none",
    )
    assert "Held-out neg. log perplexity [nats]" not in table(findings(found))["Last values"]


@pytest.mark.parametrize(
    ("names", "common"),
    [
        (["switch_8_seed_1", "switch_8_seed_2"], "switch_8"),
        (["switch_8_10", "switch_8_11"], "switch_8"),
        (["switch1", "switch2"], "switch"),
        (["t5", "t5"], "t5"),
        (["seed_1", "seed_2"], "seed_1"),
    ],
)
def test_the_name_is_what_the_seeds_share(names, common):
    runs = seeds_of("dense", 0, DENSE[:2])
    named = [dataclasses.replace(one, name=name) for one, name in zip(runs, names, strict=True)]
    assert [found.name for found in average_seeds(named)] == [common]


@pytest.mark.parametrize(("n", "m"), [(3, 3), (2, 4), (1, 3), (3, 1)])
def test_what_is_chance_is_students_interval(n, m):
    values, others = np.array([0.1, 0.4, 0.3, 0.9])[:n], np.array([1.1, 1.3, 0.7, 1.0])[:m]
    interval = ttest_ind(values, others).confidence_interval(0.95)
    assert smallest_lead(values, others) == pytest.approx((interval.high - interval.low) / 2)
    assert np.isnan(smallest_lead(values[:1], others[:1]))


def sentence(*runs):
    (found,) = compare_all(runs, "t")
    return found.sentence


def test_a_lead_is_told_with_what_chance_makes_of_it():
    # Both end with a standard deviation of 0.02. Of three and three seeds the means differ by 0.1,
    # and 2.776 x 0.02 x sqrt(2/3) = 0.045 is chance: 2.776 is Student's t for 4 degrees of freedom.
    assert sentence(*both()).endswith(
        "; at step 300 it is 0.100 nats ahead, and with 3 seeds of each less than 0.045 means "
        "nothing."
    )
    near = seeds_of("near", 8, SWITCH - 0.08)
    assert sentence(both()[0], *average_seeds(near)) == (
        "near is level with dense at step 300: 0.020 nats ahead, and with 3 seeds of each less "
        "than 0.045 means nothing."
    )
    # With one seed beside three: 4.303 x 0.02 x sqrt(4/3) = 0.099, for 2 degrees.
    assert ", and with 1 and 3 seeds less than 0.099 means nothing." in sentence(
        both()[0], seeds_of("one", 8, SWITCH)[0]
    )


def test_a_ratio_in_time_that_is_chance_is_named():
    assert " The ratio in time " not in sentence(*both())
    # A step takes 1.05 s, so at 300 s it is at step 285.7: 0.857 of the way from -4.5 to -3.9. Its
    # seeds deviate there by 0.857 x 0.02 + 0.143 x 0.2 = 0.046, those of the dense model by 0.02:
    # 2.776 x sqrt((0.046^2 + 0.02^2) / 2) x sqrt(2/3) = 0.080.
    found = sentence(*both(seconds_per_step=1.05))
    assert " times sooner in steps, 1.01 in time; " in found
    assert found.endswith(
        " means nothing. The ratio in time means nothing: after 5 min of each it is 0.014 nats "
        "ahead, less than the 0.080 that chance makes."
    )


def test_a_ratio_in_time_that_is_chance_is_not_marked():
    found = findings(*both(seconds_per_step=1.05))
    steps, time = (
        [text.get_text() for text in drawn(curves.held_out(found, axis)).texts]
        for axis in curves.both_axes(found)
    )
    assert any("speed-up" in text for text in steps)
    assert not any("speed-up" in text for text in time)


def test_the_page_and_the_terminal_show_mean_and_spread():
    found = findings(*both())
    (name, *_), *_ = [text_lines(found)[0].split()]
    assert name == "dense"
    rows = table(found)["Last values"]
    assert rows["Held-out neg. log perplexity [nats]"] == ["-4.000 ± 0.020", "-3.900 ± 0.020"]
    assert rows["Steps"] == ["300", "300"]
    assert "RANDOM_SEED" not in table(found)["Settings that differ"]
    _, value, text = _card(found, found.runs[1])
    assert value == "-3.900 ± 0.020"
    assert text.startswith("mean and standard deviation of 3 seeds; final held-out")
    assert not any("one seed of each run" in note for note in found.notes)


def test_a_band_shows_the_spread():
    chart = curves.held_out(findings(*both()), STEPS)
    ax = drawn(chart)
    assert "Band = standard deviation of the seeds." in chart.caption
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1][band[:, 0] == 300] == pytest.approx([-4.02, -3.98, -3.98], abs=0.011)
    (line,) = [line for line in ax.lines if line.get_color() == COLOURS[0]]
    np.testing.assert_allclose(line.get_ydata(), DENSE.mean(axis=0))


def test_each_seed_has_its_own_routers():
    router = series([(100, 0.0)], load=[[0.5, 0.5]])
    routers = {"encoder": {"layer 1": router}}
    runs = [dataclasses.replace(one, routers=routers) for one in seeds_of("switch", 2, SWITCH[:2])]
    titles = sections(findings(*average_seeds(runs)))
    loads = [title for title in titles if title.startswith("Load")]
    assert loads == [f"Load of the experts: switch, seed {seed}" for seed in (0, 1)]
