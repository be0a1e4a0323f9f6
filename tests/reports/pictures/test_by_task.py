import struct

import numpy as np
import pytest

from switch_jax.reports import pictures
from switch_jax.reports.drawing import picture
from switch_jax.reports.runs import Run
from switch_jax.reports.series import Series
from tests.reports.by_hand import drawn, findings

CODES = ("sw", "en", "ja", "fr", "de", "ru", "hi", "yo")
# Final values of the dense run by language, not in order; the sparse run's are a quarter better,
# but worse in Yoruba.
DENSE = dict(zip(CODES, (-2.5, -1.0, -4.0, -1.5, -2.0, -3.0, -3.5, -4.5), strict=True))
SPARSE = {code: value + (-0.25 if code == "yo" else 0.25) for code, value in DENSE.items()}


def run(name, experts, finals):
    """Evaluations at steps 100 and 200 of which the first is 1.0 worse than the second."""
    step = np.array([100, 200])
    evals = {
        f"udhr.{code}": Series(step, step * 1.0, {"neg_log_perplexity": np.array([v - 1.0, v])})
        for code, v in {**finals, "all": -3.0}.items()
    }
    evals["all"] = evals.pop("udhr.all")
    return Run(name, name, {"num_experts": experts}, "", evals["all"], evals)


def by_task(*runs):
    return pictures.by_task.by_task(findings(*runs))


def test_every_language_has_a_point_of_each_run_best_of_the_dense_one_first():
    quality, _ = by_task(run("switch", 8, SPARSE), run("dense", 0, DENSE))
    ax = drawn(quality)
    names = [label.get_text() for label in ax.get_xticklabels()]
    assert names == ["en", "fr", "de", "sw", "ru", "hi", "ja", "yo"]
    switch, dense = ([line.get_xdata().tolist(), line.get_ydata().tolist()] for line in ax.lines)
    assert dense == [list(range(8)), [-1.0, -1.5, -2.0, -2.5, -3.0, -3.5, -4.0, -4.5]]
    assert switch == [list(range(8)), [-0.75, -1.25, -1.75, -2.25, -2.75, -3.25, -3.75, -4.75]]
    assert [line.get_markerfacecolor() for line in ax.lines][1] == "white"
    assert "switch is ahead of dense on 7 of them." in quality.caption
    assert quality.wide


def test_speed_ups_by_task_are_those_of_each_curve_alone():
    _, speedups = by_task(run("dense", 0, DENSE), run("switch", 8, SPARSE))
    # Three quarters of the way from step 100 to 200, on all but Yoruba: 200 / 175.
    assert "The median is 1.14×. On 1 of 8 it never gets there." in speedups.caption
    counts = [
        (bar.get_x(), bar.get_x() + bar.get_width(), bar.get_height())
        for bar in drawn(speedups).patches
    ]
    assert sum(height for *_, height in counts) == 7
    assert sum(height for low, high, height in counts if low <= 200 / 175 <= high) == 7


def test_few_tasks_have_a_table_and_no_chart():
    few = {code: DENSE[code] for code in CODES[:7]}
    assert by_task(run("dense", 0, few), run("switch", 8, SPARSE)) == []


@pytest.mark.parametrize("runs", [[run("a", 0, DENSE)], [run("a", 8, DENSE), run("b", 8, SPARSE)]])
def test_without_a_pair_there_is_no_speed_up(runs):
    (quality,) = by_task(*runs)
    assert "ahead" not in quality.caption


def test_a_wide_chart_has_a_row_of_the_picture():
    wide, narrow = by_task(run("dense", 0, DENSE), run("switch", 8, SPARSE))
    (_, one), (_, two), (_, three) = (
        size(picture(charts, "title", [])) for charts in ([narrow], [wide, narrow], [narrow] * 7)
    )
    assert two - one == pytest.approx(three - two, abs=1)


def size(png):
    """Width and height in pixels, as the header of a PNG says."""
    return struct.unpack(">II", png[16:24])
