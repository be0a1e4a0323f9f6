"""The runs in gin/paper, against the figures that the paper prints."""

import dataclasses
import json
import math
import re

import jax
import pytest
from jax.sharding import AbstractMesh, AxisType

from switch_jax.cli import main
from switch_jax.model.flops import forward_flops
from switch_jax.partitioning.mesh import AXES
from switch_jax.train_step.microbatches import check_batch
from switch_jax.train_step.state import abstract_model
from switch_jax.trainer.start.prepare import check_run
from switch_jax.utils.paths import GIN_DIR
from tests.gin.configs import read

LENGTHS = {"inputs": 512, "targets": 114}
# Parameters and forward FLOPs of a sequence of 512 and 114 tokens (Tables 6, 7 and 9, section 4),
# which the paper rounds to two digits; None: it does not print them.
T5_BASE, T5_LARGE, T5_XXL = (0.223e9, 124e9), (0.739e9, 425e9), (11e9, 6.3e12)
SWITCH_BASE, SWITCH_LARGE = (7.4e9, 124e9), (26e9, 425e9)
EXPERTS_32, EXPERTS_64, FEW_EXPERTS = (2.0e9, 124e9), (3.8e9, 124e9), (None, 124e9)
FILES = {
    "table_1_t5_base": T5_BASE,
    "table_1_t5_large": T5_LARGE,
    "table_1_moe_base": (7.4e9, None),
    "table_1_switch_base": SWITCH_BASE,
    "table_1_switch_base_plus": (None, None),
    "table_2_selective_precision": EXPERTS_32,
    "table_2_float32": EXPERTS_32,
    "table_2_bfloat16": EXPERTS_32,
    "table_3_initialisation": EXPERTS_32,
    "table_4_t5_base": T5_BASE,
    "table_4_switch_base": SWITCH_BASE,
    "table_6_distillation": T5_BASE,
    "table_7_compression": T5_BASE,
    "table_8_super_glue": T5_BASE,
    "tables_5_9_t5_base": T5_BASE,
    "tables_5_9_t5_large": T5_LARGE,
    "tables_5_9_switch_base": SWITCH_BASE,
    "tables_5_9_switch_large": SWITCH_LARGE,
    "table_9_t5_xxl": T5_XXL,
    "table_9_switch_xxl": (395e9, 6.3e12),
    "table_9_switch_c": (1571e9, 890e9),
    "table_10_attention_experts": (None, None),
    "table_11_router_policies": EXPERTS_32,
    "figures_1_4_5_6_t5_base": T5_BASE,
    "figures_1_4_5_6_switch_base": EXPERTS_64,
    "figure_6_t5_large": T5_LARGE,
    "figures_7_8_mt5_base": (0.58e9, None),  # of mT5-Base's README
    "figures_7_8_mswitch_base": (None, None),
    "figure_11_no_token_left_behind": EXPERTS_32,
    "figure_12_few_experts": FEW_EXPERTS,
    "figure_13_super_glue": SWITCH_BASE,
    "figure_13_trivia_qa": SWITCH_BASE,
}
FLOAT32, BFLOAT16 = "float32", "bfloat16"
PARAMETERS = {}


def read_run(name, *bindings):
    """What a file says; those of Figure 13 need a model before them."""
    model = ["models/switch_base"] if name.startswith("figure_13") else []
    return read(*model, f"paper/{name}", bindings=bindings)


def fitting(name, *bindings):
    """The config of a file, which goes on its mesh and is warned of nothing."""
    config = read_run(name, *bindings).config
    check_batch(config, mesh_of(config).shape)
    assert check_run(config, readers=1) == []
    return config


def mesh_of(config):
    """The mesh of a run on as many devices along data and expert as its experts are on, or 32."""
    data = max(1, 32 // config.mesh.expert)
    shape = (data, config.mesh.expert, config.mesh.model)
    return AbstractMesh(shape, AXES, axis_types=(AxisType.Auto,) * 3)


def parameters(config):
    """The number of them on the mesh; several runs share one."""
    key = str(config.model.identity), config.mesh
    if key not in PARAMETERS:
        leaves = jax.tree.leaves(abstract_model(config.model, config.mesh, mesh_of(config)))
        PARAMETERS[key] = sum(math.prod(leaf.shape) for leaf in leaves)
    return PARAMETERS[key]


def test_every_file_is_tested():
    assert {path.stem for path in (GIN_DIR / "paper").glob("*.gin")} == {"pretrain", *FILES}


@pytest.mark.parametrize("name", FILES)
def test_a_run_fits_its_mesh_and_has_the_size_of_the_paper(name):
    config = fitting(name)
    expected, flops = FILES[name]
    count = parameters(config)
    if expected:
        assert count == pytest.approx(expected, rel=0.015)
    if flops:
        assert forward_flops(config.model, LENGTHS) == pytest.approx(flops, rel=0.01)


@pytest.mark.parametrize("name", FILES)
def test_flags_that_a_file_names_are_its_macros(name):
    text = (GIN_DIR / f"paper/{name}.gin").read_text()
    assert set(re.findall(r"--gin\.(\w+)", text)) <= read_run(name).origins.keys()


@pytest.mark.parametrize(("experts", "billions"), [(16, 1.1), (256, 14.7)])
def test_the_points_of_figure_4_are_the_teachers_of_table_7(experts, billions):
    config = fitting("figures_1_4_5_6_switch_base", f"NUM_EXPERTS={experts}")
    assert round(parameters(config) / 1e9, 1) == billions


def test_each_of_few_experts_has_a_core():
    config = fitting("figure_12_few_experts", "NUM_EXPERTS=2")
    assert mesh_of(config).shape == {"data": 16, "expert": 2, "model": 1}


@pytest.mark.parametrize(
    ("sublayers", "in_feed_forward", "in_attention"),
    [("feed_forward", 12, 0), ("attention", 0, 12), ("both", 12, 12)],
)
def test_experts_of_table_10(sublayers, in_feed_forward, in_attention):
    """By hand, from T5-Base: D = H K = 768, F = 3072, 6 + 6 layers with 32 experts.

    The paper prints no sizes. An expert in attention has a matrix [D, F] and two [F, H K].
    """
    config = fitting("table_10_attention_experts", f"EXPERT_SUBLAYERS='{sublayers}'")
    d, f, experts = 768, 3072, 32
    count = 222_903_552 + in_feed_forward * ((experts - 1) * 2 * d * f + d * experts)
    count += in_attention * (experts * 3 * d * f + d * experts - 3 * d**2)
    assert parameters(config) == count
    dense = forward_flops(
        dataclasses.replace(config.model, num_experts=0, expert_sublayers="feed_forward"), LENGTHS
    )
    more = 2 * (512 + 114) * in_attention // 2 * (3 * d * f - 3 * d**2)
    assert forward_flops(config.model, LENGTHS) == dense + more


def test_sparse_and_dense_languages_have_the_same_flops():
    names = ("figures_7_8_mt5_base", "figures_7_8_mswitch_base")
    models = [read_run(name).config.model for name in names]
    dense, sparse = (forward_flops(model, {"inputs": 1024, "targets": 256}) for model in models)
    assert dense == sparse
    assert [model.num_experts for model in models] == [0, 128]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("table_1_switch_base", {"train_expert_capacity_factor": 1.0}),
        ("table_1_switch_base_plus", {"train_expert_capacity_factor": 1.0}),
        ("table_1_moe_base", {"num_selected_experts": 2}),
        ("table_2_float32", {"activation_dtype": FLOAT32, "router_dtype": FLOAT32}),
        ("table_2_bfloat16", {"activation_dtype": BFLOAT16, "router_dtype": BFLOAT16}),
        ("table_2_selective_precision", {"activation_dtype": BFLOAT16, "router_dtype": FLOAT32}),
        ("table_3_initialisation", {"scale": 0.1}),
        ("table_10_attention_experts", {"expert_sublayers": "attention"}),
        ("table_10_attention_experts", {"activation_dtype": FLOAT32}),
        ("figure_11_no_token_left_behind", {"ntlb_rounds": 4}),
    ],
)
def test_what_sets_a_model_apart(name, settings):
    model = read_run(name).config.model
    assert {field: getattr(model, field) for field in settings} == settings


def test_what_sets_a_run_apart():
    """Batches of 2^20 tokens, of 2^19 in Table 10."""
    runs = {name: read_run(name).config for name in FILES}
    batches = {name: c.run.batch_size * c.data.lengths[0] for name, c in runs.items()}
    assert batches == {**dict.fromkeys(FILES, 2**20), "table_10_attention_experts": 2**19}
    assert runs["table_3_initialisation"].run.train_steps == 3500
    distillation = runs["table_6_distillation"].distillation
    assert (distillation.fraction_soft, distillation.initialize_from_teacher) == (0.25, True)
    tokens = 2**20 * runs["table_4_switch_base"].run.train_steps
    assert tokens == pytest.approx(34e9, rel=0.02)


@pytest.mark.slow
def test_a_run_of_the_paper_is_planned(capsys):
    pytest.importorskip("libtpu")
    flags = ["--gin.SCAN_LAYERS=True", "--gin.REMAT_POLICY=full", "--gin.NUM_MICROBATCHES=4"]
    command = ["plan", "--gin_file=paper/table_1_t5_base.gin", "--topology=v3-32", *flags, "--json"]
    assert main(command) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["parameters"] == pytest.approx(T5_BASE[0], rel=0.01)
    # Forward and backward pass of 2048 sequences. The paper counts one half of the products of
    # scores, and the keys and values of cross-attention at 114 tokens; plans count all, at 512.
    scores = 12 * 2 * 768 * (512**2 + 114**2 + 512 * 114)
    keys_and_values = 12 * 2 * 2 * 768**2 * (512 - 114)
    expected = 3 * 2048 * (T5_BASE[1] + scores + keys_and_values)
    assert plan["model_flops"] == pytest.approx(expected, rel=0.01)
