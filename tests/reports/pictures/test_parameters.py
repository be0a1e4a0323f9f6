import numpy as np

from switch_jax.reports.pictures.parameters import loss_against_parameters
from tests.reports.by_hand import drawn, findings, run


def test_loss_against_parameters_at_the_last_step_of_all(study):
    chart = loss_against_parameters(study)
    assert "Held-out loss at step 100, the last that all have" in chart.caption
    assert "bar = from the lower to the higher of 2 seeds" in chart.caption
    ax = drawn(chart)
    assert ax.get_xscale() == "log" and ax.get_ylabel() == "loss at step 100 [nats]"
    joined, alone, *points = [line.get_xydata().tolist() for line in ax.lines]
    assert joined == [[100, 4.25], [200, 3.5], [400, 3.25]]  # of equal FLOPs
    assert alone == [[350, 3.0]]
    assert points == [[[100, 4.25]], [[350, 3.0]], [[200, 3.5]], [[400, 3.25]]]
    labels = [text.get_text() for text in ax.texts]
    assert labels == ["dense", "large", "2", "4"]
    (bar,) = [
        path.vertices
        for bars in ax.collections
        for path in bars.get_paths()
        if np.isfinite(path.vertices).all()
    ]
    np.testing.assert_allclose(bar, [[100, 4.0], [100, 4.5]])


def test_without_a_common_step_task_or_sizes_there_is_no_loss_against_parameters():
    tasks = [run(name, 8, [(100, -4.0)], parameters=1, task=name) for name in "ab"]
    assert loss_against_parameters(findings(*tasks)) is None
    apart = [run("a", 0, [(100, -4.0)], parameters=1), run("b", 8, [(50, -4.0)], parameters=2)]
    assert loss_against_parameters(findings(*apart)) is None
    unknown = [run("a", 0, [(100, -4.0)]), run("b", 8, [(100, -4.0)], parameters=2)]
    assert loss_against_parameters(findings(*unknown)) is None
