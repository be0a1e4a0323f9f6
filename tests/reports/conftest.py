"""Synthetic run folders, with the lines a training writes."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from switch_jax.cli import main
from switch_jax.reports import drawing


def router_stats(rng, step: int, stacks: dict[str, list[int]], experts: int) -> dict:
    """Routing that starts uneven and undecided, and evens out while it gets more certain."""
    stats = {}
    for stack, layers in stacks.items():
        tilt = np.linspace(-1, 1, experts) * 2.5 * math.exp(-step / 300)
        load = [np.exp(tilt + 0.15 * rng.standard_normal(experts)) for _ in layers]
        stats[stack] = {
            "layers": layers,
            "sublayers": ["feed_forward"] * len(layers),
            "load": [(x / x.sum()).tolist() for x in load],
            "dropped": [0.02 + 0.2 * math.exp(-step / 200) + 0.002 * i for i in layers],
            "entropy": [math.log(experts) * (0.3 + 0.6 * math.exp(-step / 500)) for _ in layers],
        }
    return stats


def _write_run(
    folder: Path,
    *,
    num_experts: int,
    steps: int = 2000,
    train_steps: int | None = None,
    train_every: int = 20,
    eval_every: int = 100,
    rate: float = 500,
    seconds_per_step: float = 0.1,
    stacks: dict[str, list[int]] | None = None,
    tasks: tuple[str, ...] = ("facts_span_corruption",),
) -> Path:
    """A run folder whose quality approaches -4.3 with a time constant of `rate` steps."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    lines = []

    def quality(step: int) -> float:
        return -4.3 - 3.5 * math.exp(-step / rate) - 1.2 * math.exp(-step / (8 * rate))

    for step in range(1, steps + 1):
        seconds = step * seconds_per_step
        if step % train_every == 0:
            value = quality(step) + 0.05 * rng.standard_normal()
            line = {
                "kind": "train",
                "step": step,
                "seconds": seconds,
                "loss": -value + 0.02,
                "accuracy": math.exp(value / 3),
                "neg_log_perplexity": value,
                "learning_rate": 0.01 / max(step, 100) ** 0.5,
                "tokens_per_second": 2048 / seconds_per_step,
                "gradient_norm": 0.5 + math.exp(-step / 200) + 0.05 * rng.random(),
            }
            if num_experts:
                stacks = stacks or {"encoder": [1, 3], "decoder": [1, 3]}
                line["router"] = router_stats(rng, step, stacks, num_experts)
            lines.append(line)
        if step % eval_every == 0:
            for i, task in enumerate(tasks):
                value = quality(step) - 0.1 - 0.2 * i
                line = {"kind": "eval", "step": step, "seconds": seconds, "task": task}
                lines.append({**line, "neg_log_perplexity": value, "accuracy": math.exp(value / 3)})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.gin").write_text(
        f"MODEL = 'tiny'\n# if steps < 10:\nModelConfig.num_experts = {num_experts}\n"
    )
    facts = {
        "name": folder.name,
        "parameters": 1_234_567 * (1 + num_experts),
        "num_experts": num_experts,
        "flops_per_token": 2.5e6,
        "mesh": {"data": 1, "expert": 2, "model": 1},
        "device": "cpu x 2",
        "train_steps": train_steps or steps,
        "batch_tokens": 2048,
        "corpus": "facts <synthetic>",
    }
    (folder / "run.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture(scope="session")
def write_run():
    """write_run(folder, **options) writes a run folder and returns its path."""
    return _write_run


@pytest.fixture
def make_run(tmp_path):
    """make_run(name, **options) writes a run folder into the test's own."""
    return lambda name, **options: _write_run(tmp_path / name, **options)


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
    monkeypatch.setattr(drawing, "svg_data_url", lambda chart: "data:,")
