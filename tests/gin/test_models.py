"""The models in gin/models: published sizes, and what each sets as it was when last looked at.

`python -m tests.gin.test_models` writes models.json, and the parameters of a model of each kind,
anew; read their diff.
"""

import dataclasses
import json
import re
import runpy
from pathlib import Path

import pytest
from flax import nnx

from switch_jax.config import ModelConfig
from switch_jax.model.flops import flops_per_token, parameter_count
from switch_jax.model.transformer import Transformer
from switch_jax.train_step.microbatches import check_batch
from tests.gin.configs import MODELS, read
from tests.trainer.helpers import tiny_config

ROOT = Path(__file__).parents[2]
SETTINGS = Path(__file__).with_name("models.json")
PARAMETERS = Path(__file__).with_name("parameters")
# With layers of T5's first kind, of T5 1.1's, and of a language model.
KINDS = ("switch_base", "switch_xxl", "switch_lm_base")
# Parameters of the checkpoints on the Hugging Face hub: `num_parameters()` of the PyTorch models.
EXACT = {
    "t5_small": 60_506_624,
    "t5_base": 222_903_552,
    "t5_large": 737_668_096,
    "t5_3B": 2_851_598_336,
    "t5_11B": 11_307_321_344,
    "t5_1_1_small": 76_961_152,
    "t5_1_1_base": 247_577_856,
    "t5_1_1_large": 783_150_080,
    "t5_1_1_xl": 2_849_757_184,
    "t5_1_1_xxl": 11_135_332_352,
    "mt5_small": 300_176_768,
    "mt5_xxl": 12_921_057_280,
}
# Billions. The paper prints 1.1, 2.0, 3.8, 7.4, 14.7 (Table 7), 26, 395 and 1571 (Table 9); the
# further digits are those of Flaxformer's configs of the released checkpoints.
BILLIONS = {
    ("switch_base", 8): "0.619",
    ("switch_base", 128): "7.415",
    ("switch_base", 256): "14.664",
    ("switch_base_geglu", 128): "7.415",
    ("switch_large", 128): "26.309",
    ("switch_large_geglu", 128): "27.12",
    ("switch_xxl", 128): "394.675",
    ("switch_c", 2048): "1571.4",
    ("switch_c_2048", 2048): "1571.328",
}

# Of the language models, D, F, H and N; each has heads of 64 and 4 for keys and values.
LANGUAGE_MODELS = {
    "lm_small": (512, 1408, 8, 8),
    "lm_base": (768, 2048, 12, 12),
    "lm_large": (1024, 2816, 16, 24),
}


def resolve(name: str, *bindings: str) -> ModelConfig:
    """The config of a model, as a pretraining run would have it."""
    return read(f"models/{name}", "runs/pretrain", bindings=bindings).config.model


def settings(config: ModelConfig) -> dict:
    """The fields that have no default, or another value."""
    return {
        field.name: value
        for field in dataclasses.fields(config)
        if (value := getattr(config, field.name)) != field.default
    }


def parameters(config: ModelConfig) -> str:
    """A line for each parameter: path, shape, logical axes and initial deviation."""
    state = nnx.state(nnx.eval_shape(lambda: Transformer(config, nnx.Rngs(0))))
    lines = []
    for path, parameter in nnx.to_flat_state(state):
        shape = "x".join(map(str, parameter.shape))
        axes = ",".join(parameter.axes)
        lines.append(f"{'/'.join(path)}  {shape}  {axes}  {parameter.std:.6g}")
    return "\n".join(lines) + "\n"


def test_what_each_model_sets():
    found = {name: settings(resolve(name)) for name in MODELS}
    assert found == json.loads(SETTINGS.read_text())


@pytest.mark.parametrize("name", KINDS)
def test_every_parameter_of_a_model_of_each_kind(name):
    assert parameters(resolve(name)) == (PARAMETERS / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", EXACT)
def test_dense_models_have_as_many_parameters_as_the_released_ones(name):
    assert parameter_count(resolve(name)) == EXACT[name]


@pytest.mark.parametrize(("name", "experts"), BILLIONS)
def test_switch_models_have_as_many_parameters_as_published(name, experts):
    published = BILLIONS[name, experts]
    count = parameter_count(resolve(name, f"NUM_EXPERTS={experts}")) / 1e9
    assert f"{count:.{len(published.partition('.')[2])}f}" == published


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_language_models_have_the_parameters_and_flops_of_arithmetic(name):
    dim, hidden, heads, layers = LANGUAGE_MODELS[name]
    tables, swiglu = 32128 * dim, 3 * dim * hidden
    attention = 2 * dim * heads * 64 + 2 * dim * 4 * 64
    norms = layers * (2 * dim + 2 * 64) + dim
    dense = 2 * tables + layers * (attention + swiglu) + norms
    assert parameter_count(resolve(name)) == dense
    for experts in (8, 128):  # in every second layer, and a router with them
        more = layers // 2 * ((experts - 1) * swiglu + experts * dim)
        config = resolve(f"switch_{name}", f"NUM_EXPERTS={experts}")
        assert parameter_count(config) == dense + more
    matrices = tables + layers * (attention + swiglu)
    scores_and_values = 2 * layers * heads * 64 * 1024  # half of the square of 1024 positions
    for each in (name, f"switch_{name}"):
        flops = flops_per_token(resolve(each), {"targets": 1024})
        assert flops == 2 * (matrices + scores_and_values / 2)


@pytest.mark.parametrize("name", [m for m in MODELS if re.fullmatch(r"switch_\w+_\d+", m)])
def test_the_name_of_a_released_switch_model_has_its_experts(name):
    size, _, experts = name.removeprefix("switch_").rpartition("_")
    assert resolve(name).num_experts == int(experts)
    family = f"switch_{size}" if size != "c" else name
    assert resolve(name) == resolve(family, f"NUM_EXPERTS={experts}")


@pytest.mark.parametrize(
    ("name", "experts_axis", "batch", "tokens"),
    [("switch_c", 512, 8192, 4), ("switch_c_2048", 2048, 32768, 1)],
)
def test_a_group_of_switch_c_has_tokens_for_each_expert(name, experts_axis, batch, tokens):
    config = resolve(name)
    shape = {"data": 1, "expert": experts_axis, "model": 1}
    check_batch(tiny_config(config, batch, (512, 114)), shape)
    assert config.group_size == tokens * config.num_experts
    assert config.train_expert_capacity_factor == (1.25 if tokens == 4 else 1.0)


def test_the_docs_have_rows_of_groups_that_their_command_prints(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)  # gin imports benchmarks.tasks from there
    runpy.run_path(str(ROOT / "benchmarks/routing_groups.py"), run_name="__main__")
    printed = capsys.readouterr().out.splitlines()
    page = (ROOT / "docs/groups_and_capacity.md").read_text()
    (table,) = re.findall(r"(?:^\|.*\n)+", page, re.M)
    told = table.splitlines()
    assert len(told) > 8 and told[:2] == printed[:2]
    assert set(told) <= set(printed)


if __name__ == "__main__":
    SETTINGS.write_text(json.dumps({n: settings(resolve(n)) for n in MODELS}, indent=1) + "\n")
    for kind in KINDS:
        (PARAMETERS / f"{kind}.txt").write_text(parameters(resolve(kind)))
