import re
from types import SimpleNamespace

from tests.docs.pages import texts


def test_the_loop_over_scores_prints_those_of_a_task_with_metrics_of_its_own(capsys):
    (loop,) = re.findall(
        r"^for record in switch_jax.evaluate.*\n(?: .*\n)+", texts()["docs/python.md"], re.M
    )
    records = [
        {"kind": "teacher_forced", "task": "t", "metrics": {"neg_log_perplexity": -2.0}},
        {"kind": "generated", "task": "t", "metrics": {"em": 50.0}},
    ]
    exec(loop, {"switch_jax": SimpleNamespace(evaluate=lambda *args, **options: records)})
    assert capsys.readouterr().out.splitlines() == [
        "t teacher_forced {'neg_log_perplexity': -2.0}",
        "t generated {'em': 50.0}",
    ]
