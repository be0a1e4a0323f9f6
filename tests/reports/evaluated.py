"""The records that `switch_jax eval` writes."""

import json

GREEDY = "greedy, at most 62 tokens"


def generated(step, task, split="validation", decoding=GREEDY, max_examples=None, **metrics):
    options = {"split": split, "max_examples": max_examples, "decoding": decoding}
    return {"kind": "generated", "step": step, "task": task, **options, "metrics": metrics}


def given(step, task, value):
    options = {"split": "validation", "max_examples": None}
    metrics = {"neg_log_perplexity": value, "accuracy": 0.5}
    return {"kind": "teacher_forced", "step": step, "task": task, **options, "metrics": metrics}


def add_scores(run, lines, tail=""):
    (run / "eval").mkdir()
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "eval" / "metrics.jsonl").write_text(text + tail)
    return run
