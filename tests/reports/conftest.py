"""Synthetic run folders, with the lines a training writes."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from switch_jax.cli import main
from switch_jax.config import Config, DataConfig, RunConfig
from switch_jax.drawing import figures
from tests.reports.by_hand import write_lines
from tests.trainer.helpers import tiny_model


def router_stats(step, layers, experts):
    """Routing that starts uneven and undecided, and evens out while it gets more certain."""
    load = np.exp(np.linspace(-1, 1, experts) * 2.5 * math.exp(-step / 300))
    return {
        "layers": layers,
        "sublayers": ["feed_forward"] * len(layers),
        "load": [(load / load.sum()).tolist()] * len(layers),
        "dropped": [0.02 + 0.2 * math.exp(-step / 200) + 0.002 * i for i in layers],
        "entropy": [math.log(experts) * (0.3 + 0.6 * math.exp(-step / 500))] * len(layers),
    }


def _write_run(
    folder,
    *,
    num_experts,
    steps,
    train_steps=None,
    train_every=20,
    eval_every=100,
    rate=500,
    layers=(1, 3),
    tasks=("facts_span_corruption",),
):
    """A run folder whose quality approaches -4.3 with a time constant of `rate` steps."""
    folder = Path(folder).absolute()
    lines = []
    for step in range(1, steps + 1):
        quality = -4.3 - 3.5 * math.exp(-step / rate) - 1.2 * math.exp(-step / (8 * rate))
        line = {"step": step, "seconds": 0.1 * step, "accuracy": math.exp(quality / 3)}
        if step % train_every == 0:
            train = {"kind": "train", "neg_log_perplexity": quality, "loss": 0.02 - quality}
            train |= {"learning_rate": 0.001, "tokens_per_second": 2e4, "gradient_norm": 1 / step}
            if num_experts:
                router = router_stats(step, list(layers), num_experts)
                train["router"] = {"encoder": router, "decoder": router}
            lines.append(line | train)
        if step % eval_every == 0:
            for i, task in enumerate(tasks):
                value = quality - 0.1 - 0.2 * i
                lines.append(line | {"kind": "eval", "task": task, "neg_log_perplexity": value})
    write_lines(folder, lines)
    config = Config(
        RunConfig(str(folder), train_steps or steps, batch_size=8),
        tiny_model(num_experts=num_experts),
        DataConfig("facts, a < b", {"inputs": 16, "targets": 8}),
    )
    (folder / "config.json").write_text(json.dumps(config.settings()))
    facts = {"name": folder.name, "num_experts": num_experts, "corpus": "facts <synthetic>"}
    facts |= {"mesh": {"data": 1, "expert": 2, "model": 1}, "train_steps": train_steps or steps}
    (folder / "run.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture(scope="session")
def make_run():
    """make_run(folder, **options) writes a run, by default into the test's own folder."""
    return _write_run


@pytest.fixture
def page_of(tmp_path):
    """page_of(*folders): the page of these runs, through the command."""

    def page_of(*folders):
        output = tmp_path / "report.html"
        assert main(["report", *map(str, folders), f"--output={output}"]) == 0
        return output.read_text(encoding="utf-8")

    return page_of


@pytest.fixture
def no_charts(monkeypatch):
    """No chart is drawn: other tests draw what is read, and those that take this are many."""
    monkeypatch.setattr(figures, "svg_data_url", lambda chart: "data:,")
