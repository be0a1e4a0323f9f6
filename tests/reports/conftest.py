"""Synthetic run folders, with the lines a training writes."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from switch_jax.reports import drawing, template
from tests.reports.evaluated import add_scores, generated
from tests.reports.pages import make_report

# Model, checkpoint, its quality, and after fine-tuning the best and the last score.
TUNINGS = [
    ("dense", 4, -2.0, 60.0, 59.0),
    ("dense", 6, -1.75, 65.0, 64.0),
    ("dense", 8, -1.5, 72.5, 70.0),
    ("switch", 4, -1.875, 61.0, 60.0),
    ("switch", 6, -1.625, 63.0, 62.0),
    ("switch", 8, -1.25, 75.0, 74.0),
]


def router_stats(rng, step: int, stacks: dict[str, list[int]], experts: int) -> dict:
    """Routing that starts uneven and undecided, and evens out while it gets more certain."""
    stats = {}
    for stack, layers in stacks.items():
        tilt = np.linspace(-1, 1, experts) * 2.5 * math.exp(-step / 300)
        load = [np.exp(tilt + 0.15 * rng.standard_normal(experts)) for _ in layers]
        stats[stack] = {
            "layers": layers,
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
    final: float = -4.3,
    rate: float = 500,
    seconds_per_step: float = 0.1,
    stacks: dict[str, list[int]] | None = None,
    tasks: tuple[str, ...] = ("facts_span_corruption",),
    seed: int = 0,
    content: bool = False,
) -> Path:
    """A run folder whose quality approaches `final` with a time constant of `rate` steps.

    With `content` evaluations have values without sentinels and EOS too, a quarter nat lower.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    lines = []

    def quality(step: int) -> float:
        return final - 3.5 * math.exp(-step / rate) - 1.2 * math.exp(-step / (8 * rate))

    for step in range(1, steps + 1):
        seconds = step * seconds_per_step
        if step % train_every == 0:
            value = quality(step) + 0.05 * rng.standard_normal()
            line = {
                "kind": "train",
                "step": step,
                "seconds": seconds,
                "loss": -value + 0.02,
                "cross_entropy": -value,
                "z_loss": 0.001,
                "accuracy": math.exp(value / 3),
                "neg_log_perplexity": value,
                "learning_rate": 0.01 / max(step, 100) ** 0.5,
                "tokens_per_second": 2048 / seconds_per_step * (1 + 0.03 * rng.standard_normal()),
                "gradient_norm": 0.5 + math.exp(-step / 200) + 0.05 * rng.random(),
                "parameter_norm": 100 + 0.01 * step,
            }
            if num_experts:
                line["load_balance_loss"] = 4.0
                line["router_z_loss"] = 0.1
                line["router"] = router_stats(
                    rng, step, stacks or {"encoder": [1, 3], "decoder": [1, 3]}, num_experts
                )
            lines.append(line)
        if step % eval_every == 0:
            for i, task in enumerate(tasks):
                value = quality(step) - 0.1 - 0.2 * i
                lines.append(
                    {
                        "kind": "eval",
                        "step": step,
                        "seconds": seconds,
                        "task": task,
                        "neg_log_perplexity": value,
                        "cross_entropy": -value,
                        "accuracy": math.exp(value / 3),
                        "tokens": 20480,
                    }
                )
                if content:
                    lines[-1]["content_neg_log_perplexity"] = value - 0.25
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.gin").write_text(
        f"MODEL = 'tiny'\n# if steps < 10:\nModelConfig.num_experts = {num_experts}\n"
    )
    (folder / "run.json").write_text(
        json.dumps(
            {
                "name": folder.name,
                "parameters": 1_234_567 * (1 + num_experts),
                "num_experts": num_experts,
                "flops_per_token": 2.5e6,
                "mesh": {"data": 1, "expert": 2 if num_experts else 1, "model": 1},
                "device": "cpu x 2",
                "train_steps": train_steps or steps,
                "batch_tokens": 2048,
                "seed": seed,
                "corpus": "facts <synthetic>",
            }
        )
    )
    return folder


@pytest.fixture(scope="session")
def write_run():
    """write_run(folder, **options) writes a run folder and returns its path."""
    return _write_run


@pytest.fixture
def make_run(tmp_path, write_run):
    """make_run(name, **options) writes a run folder into the test's own."""
    return lambda name, **options: write_run(tmp_path / name, **options)


@pytest.fixture
def page_of(tmp_path):
    """page_of(*folders): the page of these runs."""
    return lambda *folders: make_report(*folders, output=tmp_path / "report.html")


@pytest.fixture
def no_charts(monkeypatch):
    """No chart is drawn: other tests draw what is read, and those that take this are many."""
    monkeypatch.setattr(template, "svg_data_url", lambda chart: "data:,")
    monkeypatch.setattr(drawing, "picture", lambda *_, **options: b"")


@pytest.fixture
def make_tuned(tmp_path):
    """make_tuned(name, experts, checkpoint, lines) writes a fine-tuned run with scores.

    With `seed` it has a config, too.
    """

    def make(name, experts, checkpoint, lines, tail="", seed=None):
        folder = tmp_path / name
        folder.mkdir()
        line = {"kind": "eval", "step": 10, "seconds": 1.0, "task": name, "neg_log_perplexity": -1}
        (folder / "metrics.jsonl").write_text(json.dumps(line))
        facts = {"name": name, "num_experts": experts, "initial_checkpoint": checkpoint}
        if seed is not None:
            facts["seed"] = seed
            _write_config(folder, experts, seed, checkpoint)
        (folder / "run.json").write_text(json.dumps(facts))
        return add_scores(folder, lines, tail)

    return make


@pytest.fixture
def make_pretrained(tmp_path):
    """make_pretrained(name, {step: value}) writes a run with those evaluations of task 'all'.

    With `experts` and `seed` it has a config and run.json, too.
    """

    def make(name, evals, experts=None, seed=None):
        folder = tmp_path / name
        folder.mkdir()
        lines = [
            {"kind": "eval", "step": step, "seconds": step, "task": task, "neg_log_perplexity": x}
            for step, value in evals.items()
            for task, x in (("all", value), ("web", value - 1))
        ]
        lines.append({"kind": "train", "step": 1000, "seconds": 1000, "loss": 1.0})
        (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
        if seed is not None:
            facts = {"name": name, "num_experts": experts, "seed": seed, "initial_checkpoint": None}
            (folder / "run.json").write_text(json.dumps(facts))
            _write_config(folder, experts, seed, None)
        return folder

    return make


def _write_config(folder: Path, experts: int, seed: int, checkpoint: str | None) -> None:
    (folder / "config.gin").write_text(
        f"INITIAL_CHECKPOINT_PATH = \\\n    {checkpoint!r}\nMODEL_DIR = \\\n    '{folder}'\n"
        f"NUM_EXPERTS = {experts}\nRANDOM_SEED = {seed}\n"
        "RunConfig.initial_checkpoint_path = %INITIAL_CHECKPOINT_PATH\n"
    )


@pytest.fixture
def make_seeds(make_tuned, make_pretrained):
    """make_seeds(number) writes the runs of TUNINGS, each with this number of seeds.

    Each seed came from a pretraining of its own. Its upstream quality is an eighth of a nat above
    that of the seed before, and its scores are 2 higher.
    """

    def make(number):
        pretrained = {
            (kind, seed): make_pretrained(
                f"{kind}_{seed}",
                {step: x + seed / 8 for name, step, x, _, _ in TUNINGS if name == kind},
                experts,
                seed,
            )
            for kind, experts in (("dense", 0), ("switch", 8))
            for seed in range(number)
        }
        return [
            make_tuned(
                f"{kind}_{step}k_{seed}",
                8 * (kind == "switch"),
                f"{pretrained[kind, seed]}/checkpoints/{step}",
                [
                    generated(100, "qa", average=best + 2 * seed),
                    generated(200, "qa", average=last + 2 * seed),
                ],
                seed=seed,
            )
            for kind, step, _, best, last in TUNINGS
            for seed in range(number)
        ]

    return make


@pytest.fixture
def make_tunings(make_tuned, make_pretrained):
    """make_tunings(task) writes fine-tuned runs of a dense and a sparse model, three each."""

    def make(task="qa"):
        tuned = []
        for kind, experts in (("dense", 0), ("switch", 8)):
            evals = {step: x for name, step, x, _, _ in TUNINGS if name == kind}
            folder = make_pretrained(f"{kind}_for_{task}", evals)
            for name, step, _, best, last in TUNINGS:
                if name == kind:
                    lines = [
                        generated(100, task, average=best),
                        generated(200, task, average=last),
                        generated(200, f"{task}_squad", em=10 * step, f1=1.0),
                    ]
                    checkpoint = f"{folder}/checkpoints/{step}"
                    tuned.append(make_tuned(f"{kind}{step}_{task}", experts, checkpoint, lines))
        return tuned

    return make
