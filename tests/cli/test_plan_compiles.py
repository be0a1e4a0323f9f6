"""`switch_jax plan` with the TPU's compiler, which is libtpu."""

import json

import pytest

from switch_jax.cli import main
from switch_jax.hardware.tpus import parse_slice
from switch_jax.planning import compiler
from tests.cli.test_plan import CONTRACT, GIB, TINY


@pytest.mark.slow
def test_a_switch_model_compiled_for_four_chips(capsys):
    pytest.importorskip("libtpu")
    assert main(["plan", *TINY, "--topology=v5p:2x2x1", "--mesh=1,4,1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(CONTRACT) <= set(result)
    # One Switch layer in each stack: tokens out and back, their gradients back and out; in the
    # encoder in two chunks.
    exchanges = [c for c in result["collectives"] if c["op"] == "all-to-all"]
    assert [(c["dtype"], c["axis"], c["count"]) for c in exchanges] == [("bf16", "expert", 12)]
    assert result["parameters"] == 5_688_960
    assert result["parameter_bytes"] == 4 * result["parameters"]
    assert sum(result["cycles_by_part"].values()) == result["estimated_cycles"]
    # The step computes the model's FLOPs and those of the experts' empty slots.
    assert 1 < result["compiled_flops"] / result["model_flops"] < 1.25
    assert result["hbm_bytes_per_chip"] < result["hbm_limit_bytes"] == 95 * GIB


@pytest.mark.slow
def test_collectives_of_a_mesh_of_data_and_experts(capsys):
    """The compiler prints the groups of its gradients in another form."""
    pytest.importorskip("libtpu")
    assert main(["plan", *TINY, "--topology=v5p:2x2x1", "--mesh=2,2,1", "--json"]) == 0
    collectives = json.loads(capsys.readouterr().out)["collectives"]
    axes = {(c["op"], c["axis"]) for c in collectives}
    assert ("all-to-all", "expert") in axes
    assert {axis for op, axis in axes if op != "all-to-all"} <= {"data", "expert", "data+expert"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "devices"), [("v4-8", 4), ("v5e-1", 1), ("v3-8", 8), ("tpu7x-8", 8), ("2xv5e-4", 8)]
)
def test_the_number_of_devices_equals_that_of_the_compiler(name, devices):
    pytest.importorskip("libtpu")
    hardware = parse_slice(name)
    assert len(compiler.devices(hardware)) == hardware.devices == devices


@pytest.mark.slow
def test_a_step_that_does_not_fit_fits_after_the_change_that_is_named(capsys):
    """Most of the memory are saved activations of unrolled layers."""
    pytest.importorskip("libtpu")
    arguments = ["plan", "--gin_file=models/t5_demo.gin", "--gin_file=runs/pretrain.gin"]
    sizes = {
        "EMBED_DIM": 512,
        "MLP_DIM": 2048,
        "HEAD_DIM": 64,
        "NUM_HEADS": 8,
        "NUM_EMBEDDINGS": 1152,
        "NUM_ENCODER_LAYERS": 4,
        "NUM_DECODER_LAYERS": 4,
        "BATCH_SIZE": 8192,
        "ACTIVATION_DTYPE": "'bfloat16'",
        "SCAN_LAYERS": False,
        "REMAT_POLICY": "'none'",
    }
    arguments += [f"--gin.{name}={value}" for name, value in sizes.items()]
    arguments += ["--topology=v5e:2x2", "--mesh=4,1,1", "--json"]
    assert main(arguments) == 3
    result = json.loads(capsys.readouterr().out)
    assert result["hbm_bytes_per_chip"] > result["hbm_limit_bytes"] > 15 * GIB
    flags, memory = result["nearest_change"].split(" (")
    assert "--gin.REMAT_POLICY=full" in flags.split()
    assert main([*arguments, *flags.split()]) == 0
    bytes_needed = json.loads(capsys.readouterr().out)["hbm_bytes_per_chip"]
    assert memory == f"{bytes_needed / GIB:.1f} GiB a chip)"
