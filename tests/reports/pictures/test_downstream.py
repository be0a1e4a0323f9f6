from matplotlib.figure import Figure

from switch_jax.reports.drawing import COLOURS, GREY
from switch_jax.reports.findings import read_findings
from switch_jax.reports.pictures import downstream
from tests.reports.evaluated import generated


def drawn(charts, *folders):
    """Title -> axes of the charts of some runs."""
    found = {}
    for chart in made(charts, *folders):
        found[chart.title] = Figure().add_subplot()
        chart.draw(found[chart.title])
    return found


def made(charts, *folders):
    return [chart for chart in charts(read_findings(folders)) if chart is not None]


def lines(ax):
    return [[line.get_xdata().tolist(), line.get_ydata().tolist()] for line in ax.lines]


def test_best_scores_lie_over_upstream_quality_with_a_line_for_dense_and_one_for_sparse(
    make_tunings,
):
    backwards = make_tunings()[::-1]
    found = drawn(downstream.against_upstream, *backwards)
    assert list(found) == ["qa against upstream quality", "qa_squad against upstream quality"]
    ax = found["qa against upstream quality"]
    dense, sparse, *points = lines(ax)
    assert dense == [[-2.0, -1.75, -1.5], [60.0, 65.0, 72.5]]
    assert sparse == [[-1.875, -1.625, -1.25], [61.0, 63.0, 75.0]]
    expected = [(-1.25, 75), (-1.625, 63), (-1.875, 61), (-1.5, 72.5), (-1.75, 65), (-2.0, 60)]
    assert points == [[[x], [y]] for x, y in expected]
    colours = [line.get_color() for line in ax.lines]
    assert colours[:2] == [GREY, GREY]
    assert [line.get_linestyle() for line in ax.lines[:2]] == ["--", "-"]
    hollow = [line.get_markerfacecolor() == "white" for line in ax.lines]
    assert hollow == [True, False, *[False] * 3, *[True] * 3]
    assert len(set(colours[2:])) == 6 and set(colours[2:]) <= set(COLOURS)  # one for each run
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["dense", "sparse"]
    assert {text.get_text() for text in ax.texts} == {run.name for run in backwards}
    assert ax.get_xlabel() == "upstream neg. log perplexity [nats]"
    assert ax.get_ylabel() == "best average [%]"


def test_only_runs_whose_origin_is_known_are_shown(make_tuned, make_pretrained):
    scores = [generated(100, "qa", average=50.0)]
    folder = make_pretrained("parent", {400: -2.0})
    known = make_tuned("known", 8, f"{folder}/checkpoints/400", scores)
    gone = make_tuned("gone", 8, "/nowhere/checkpoints/400", scores)
    scratch = make_tuned("scratch", 0, None, scores)
    unscored = make_tuned("unscored", 0, f"{folder}/checkpoints/400", [])
    failed = make_tuned(
        "failed", 0, f"{folder}/checkpoints/400", [generated(1, "qa", average=None)]
    )
    found = drawn(downstream.against_upstream, known, gone, scratch, unscored, failed)
    assert lines(found["qa against upstream quality"]) == [[[-2.0], [50.0]]] * 2
    assert drawn(downstream.against_upstream, gone, scratch, unscored, failed) == {}


def test_every_metric_has_a_chart_over_steps(make_tunings):
    found = drawn(downstream.over_steps, *make_tunings()[2:4])
    assert list(found) == ["qa: average", "qa_squad: em", "qa_squad: f1"]
    assert lines(found["qa: average"]) == [[[100, 200], [72.5, 70.0]], [[100, 200], [61.0, 60.0]]]
    assert [line.get_linestyle() for line in found["qa: average"].lines] == ["--", "-"]
    assert lines(found["qa_squad: em"]) == [[[200], [80]], [[200], [40]]]


def test_seeds_are_a_point_with_a_bar_in_both_directions(make_seeds):
    runs = make_seeds(3)
    found = drawn(downstream.against_upstream, *runs)
    dense, sparse, *points = lines(found["qa against upstream quality"])
    assert dense == [[-1.875, -1.625, -1.375], [62.0, 67.0, 74.5]]
    assert sparse == [[-1.75, -1.5, -1.125], [63.0, 65.0, 77.0]]
    # Standard deviations of 0, 1/8, 2/8 nats and of 0, 2, 4 are an eighth and 2.
    expected = [
        line
        for x, y in zip(dense[0] + sparse[0], dense[1] + sparse[1], strict=True)
        for line in ([[x, x], [y - 2, y + 2]], [[x - 1 / 8, x + 1 / 8], [y, y]], [[x], [y]])
    ]
    assert points == expected
    labels = {text.get_text() for text in found["qa against upstream quality"].texts}
    assert labels == {f"{kind}_{step}k" for kind in ("dense", "switch") for step in (4, 6, 8)}
    (chart,) = made(downstream.against_upstream, *runs)
    assert chart.caption.endswith(
        "Point = mean over seeds; bar = one standard deviation of 3 seeds either side of the mean."
    )


def test_a_seed_without_a_score_leaves_the_point_to_the_others(make_seeds):
    runs = make_seeds(3)[:3]
    (runs[1] / "eval" / "metrics.jsonl").unlink()
    (chart,) = made(downstream.against_upstream, *runs)
    assert chart.caption.endswith("bar = from the lower to the higher of 2 seeds.")
    ax = Figure().add_subplot()
    chart.draw(ax)
    assert lines(ax)[1:] == [
        [[-1.875, -1.875], [60.0, 64.0]],
        [[-2.0, -1.75], [62.0, 62.0]],
        [[-1.875], [62.0]],
    ]


def test_seeds_are_a_line_over_steps_with_a_band(make_seeds):
    runs = make_seeds(3)[:6]
    ax = drawn(downstream.over_steps, *runs)["qa: average"]
    assert lines(ax) == [[[100, 200], [62.0, 61.0]], [[100, 200], [67.0, 66.0]]]
    assert {text.get_text() for text in ax.texts} == {"dense_4k", "dense_6k"}
    corners = {tuple(corner) for corner in ax.collections[0].get_paths()[0].vertices}
    assert corners == {(100, 60), (200, 59), (200, 63), (100, 64)}
    (chart,) = made(downstream.over_steps, *runs)
    assert "Line = mean over seeds; band = one standard deviation of 3 seeds" in chart.caption
